import copy

import numpy as np
import pytest
import torch

from yolo_edgequant.training.fake_quantization import BiasCorrection, FakeQuantization, Trace

RANGES = {0: (-1.0, 3.0), 1: (0.0, 255 / 256), 2: (-0.25, 3.0), 4: (-1.0, 3.0)}


def quantization(granularity="channel"):
    return FakeQuantization(RANGES, {1}, {0}, granularity, "tflite")


def test_a_result_is_on_one_of_256_levels_between_the_ends():
    made = quantization().eval().result(0, torch.linspace(-5, 5, 1001))
    low, high = quantization().ranges()[0]
    assert len(made.unique()) == 256
    assert made.min() == pytest.approx(low)
    assert made.max() == pytest.approx(high)
    assert (made == 0).any(), "zero is a level, or padding would not be zero"


def test_training_rounds_like_inference_and_learns_the_steps():
    points, values = quantization(), torch.linspace(-5, 5, 1001, requires_grad=True)
    trained = points.train().result(0, values)
    assert torch.allclose(trained, copy.deepcopy(points).eval().result(0, values), atol=1e-6)
    trained.square().sum().backward()
    inside = values.detach().abs().sub(0.5).abs() < 0.4
    assert (values.grad[inside] != 0).all(), "rounding passes gradients on"
    assert (values.grad[values.detach() > 4] == 0).all(), "clipping does not"
    group = points.points[0]
    assert points.log_factor.grad[group] != 0
    assert points.log_factor.grad[points.points[2]] == 0


def test_equal_ranges_stay_equal_and_fixed_ones_stay():
    points = quantization()
    assert points.points[0] == points.points[4]
    with torch.no_grad():
        points.log_factor += 0.1
        points.shift += 3
    ranges = points.ranges()
    assert ranges[0] == ranges[4]
    assert ranges[1] == RANGES[1]
    assert ranges[0][1] - ranges[0][0] == pytest.approx(4 * np.exp(0.1))
    assert points.result(7, torch.tensor(0.123456)) == torch.tensor(0.123456), "no point there"


def test_half_precision_keeps_the_ranges():
    points = quantization()
    assert copy.deepcopy(points).half().float().ranges() == points.ranges()


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_weights_are_rounded_as_the_quantiser_does(granularity):
    weights = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1, 2, 3, 9.0]).view(
        4, 1, 1, 1
    )
    made = quantization(granularity).weights(0, weights, 0).numpy()
    largest = np.abs(weights.numpy()).max((1, 2, 3) if granularity == "channel" else None, keepdims=True)
    step = largest / 127
    np.testing.assert_allclose(made, np.round(weights.numpy() / step) * step, atol=1e-6)
    assert quantization(granularity).weights(3, weights, 0) is weights


def test_a_trace_numbers_what_computes_and_rounds_it():
    silu, image = torch.nn.SiLU(), torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    convolution = torch.nn.Conv2d(2, 4, 3)

    def forward():
        left, right = silu(convolution(image)).chunk(2, 1)
        return torch.cat((left + right, right), 1).permute(0, 2, 3, 1)

    seen = {}
    with torch.no_grad(), Trace(see=seen.__setitem__) as trace:
        forward()
    assert [call.name for call in trace.calls] == ["conv2d", "sigmoid", "silu", "add", "cat"]
    assert trace.calls[-1].shape == (4, 6, 6)
    with torch.no_grad(), Trace(quantization().eval()):
        made = forward()
    low, high = RANGES[4]
    levels = made.numpy() / ((high - low) / 255)
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-3)
    assert torch.allclose(seen[2], silu(seen[0]))


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_corrected_biases_take_back_what_rounded_weights_add(granularity):
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(2, 4, 3), torch.nn.ConvTranspose2d(4, 3, 2), torch.nn.Linear(3, 5)
    with torch.no_grad():
        layers[0].weight *= torch.tensor([1.0, 10, 100, 1000]).view(4, 1, 1, 1)
    points, images = FakeQuantization({}, (), {0, 1, 2}, granularity, "tflite"), torch.rand(8, 2, 9, 9)
    added = {}

    class Added(Trace):
        def _rounded(self, func, args, kwargs):
            made = super()._rounded(func, args, kwargs)
            shift = func(made[0], made[1], None, *made[3:], **kwargs) - func(
                made[0], args[1], None, *made[3:], **kwargs
            )
            bias = args[2] - before[len(self.calls)]
            axis = 1 if shift.dim() == 4 and func.__name__ != "linear" else -1
            added[len(self.calls)] = (shift.movedim(axis, -1).flatten(0, -2).mean(0), bias)
            return made

    def forward():
        return layers[2](layers[1](layers[0](images)).permute(0, 2, 3, 1))

    before = [layer.bias.detach().clone() for layer in layers]
    with torch.no_grad(), BiasCorrection(points):
        forward()
    with torch.no_grad(), Added(points):
        forward()
    assert set(added) == {0, 1, 2}
    for shift, bias in added.values():
        assert shift.abs().max() > 0
        assert torch.allclose(shift, -bias, atol=float(shift.abs().max()) * 1e-3)
