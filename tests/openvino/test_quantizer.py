import nncf
import numpy as np
import openvino as ov
import pytest
import torch
from torch import nn
from ultralytics import YOLO

from yolo_edgequant.demo.train import SIZE, WEIGHTS
from yolo_edgequant.errors import RecipeError
from yolo_edgequant.openvino import graph, interpreter, quantizer
from yolo_edgequant.openvino.conversion import to_openvino
from yolo_edgequant.options import Head

pytestmark = pytest.mark.export


@pytest.fixture(scope="module")
def model():
    detector = YOLO(WEIGHTS).model.float().eval().requires_grad_(False).fuse()
    detector.model[-1].export = True
    image = torch.zeros(1, 3, SIZE, SIZE)
    detector(image)
    return to_openvino(detector, image)


@pytest.fixture(scope="module")
def transposed(images):
    return [image.transpose(0, 3, 1, 2) for image in images]


def roundings(quantized, scope):
    """By name of an operation in `scope`, whether any of its inputs is rounded."""
    nodes = [node for node in quantized.get_ops() if node.get_friendly_name() in scope]
    return {
        node.get_friendly_name(): any(
            value.get_node().get_type_name() == "FakeQuantize" for value in node.input_values()
        )
        for node in nodes
    }


def test_box_decoding_stays_in_float_and_all_else_does_not(model, transposed):
    decoding = set(graph.decoding(model))
    quantized = quantizer.quantize(model, nncf.Dataset(transposed), Head.FLOAT, len(transposed))
    layers = [node for node in quantized.get_ops() if node.get_type_name() == "Convolution"]
    plain = [node for node in layers if graph.constant(node.input_value(1).get_node()) is not None]
    assert len(plain) == 1, "weights without scales: only the expectation's"
    assert plain[0].get_friendly_name() in decoding
    assert not any(roundings(quantized, decoding).values())
    assert len(quantizer.quantized_layers(quantized, model)) == len(layers) - 1


def test_with_head_int8_only_the_last_operations_stay_in_float(model, transposed):
    quantized = quantizer.quantize(model, nncf.Dataset(transposed), Head.INT8, len(transposed))
    assert not any(roundings(quantized, set(graph.last(model))).values())
    assert any(roundings(quantized, set(graph.decoding(model))).values())


def test_a_model_without_box_decoding_is_refused():
    bare = to_openvino(nn.Conv2d(3, 4, 3).eval(), torch.zeros(1, 3, 8, 8))
    with pytest.raises(RecipeError, match="matched nothing"):
        quantizer.quantize(bare, nncf.Dataset([np.zeros((1, 3, 8, 8), np.float32)]), Head.FLOAT, 1)


def test_a_scope_that_was_ignored_in_vain_is_an_error(model, transposed, monkeypatch):
    ignored = nncf.IgnoredScope
    monkeypatch.setattr(nncf, "IgnoredScope", lambda names: ignored(names=names[:1]))
    with pytest.raises(RecipeError, match="should have stayed in float but its input is quantized"):
        quantizer.quantize(model, nncf.Dataset(transposed), Head.FLOAT, len(transposed))


def network():
    """Six convolutions, of which the second leaves its first channel, the one that matters, a 300th of its 8 bits."""
    torch.manual_seed(0)
    layers = [layer for i in range(6) for layer in (nn.Conv2d(8 if i else 3, 8, 3, padding=1), nn.ReLU())][:-1]
    layers[2].weight.data[1:] *= 300
    layers[2].bias.data[1:] *= 300
    layers[4].weight.data[:, 1:] *= 1e-4
    return to_openvino(nn.Sequential(*layers).eval(), torch.zeros(1, 3, 8, 8))


@pytest.fixture(scope="module")
def pair():
    """A float model, the same quantized, and pictures for both."""
    pictures = list(np.random.default_rng(0).random((8, 1, 3, 8, 8), np.float32))
    return network(), quantizer.quantize(network(), nncf.Dataset(pictures), Head.RAW, len(pictures)), pictures


def error(model, pair):
    plain, _, pictures = pair
    expected, outputs = (
        np.concatenate([results[0] for results in interpreter.run(m, pictures).outputs]) for m in (plain, model)
    )
    return np.square(outputs - expected).mean() / expected.var((0, 2, 3)).mean()


def test_layers_go_back_to_float_with_their_weights_and_biases(pair):
    plain, quantized, _ = pair
    names = quantizer.quantized_layers(quantized, plain)
    assert len(names) == 6
    some = quantizer.in_float(quantized, plain, names[1:3])
    assert quantizer.quantized_layers(some, plain) == [names[0], *names[3:]]
    assert quantizer.quantized_layers(quantized, plain) == names, "it is a copy"
    assert error(quantizer.in_float(quantized, plain, names), pair) < 1e-10
    assert error(quantizer.in_float(quantized, plain, []), pair) == error(quantized, pair) > 1e-4


def test_the_layer_that_costs_most_alone_is_the_one_that_helps_most_in_float(pair):
    """No bound on the errors themselves: those of layers do not add up, and on some CPUs one alone is the largest."""
    plain, quantized, _ = pair
    names = quantizer.quantized_layers(quantized, plain)
    alone = {n: error(quantizer.in_float(quantized, plain, [o for o in names if o != n]), pair) for n in names}
    without = {n: error(quantizer.in_float(quantized, plain, [n]), pair) for n in names}
    assert min(alone.values()) > 0
    assert max(alone, key=alone.get) == min(without, key=without.get)


def outliers():
    """Pictures with one value of each channel far outside."""
    pictures = np.random.default_rng(0).random((8, 1, 3, 256, 256), np.float32)
    pictures[..., 7, 9] = 1000
    return list(pictures)


def test_ranges_can_be_replaced():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 8, 1), nn.SiLU(), nn.Conv2d(8, 8, 1)).eval()
    model = to_openvino(layers, torch.zeros(1, 3, 256, 256))
    quantized = quantizer.quantize(model, nncf.Dataset(outliers()), Head.RAW, 8, correct_bias=False)
    before = quantizer.activation_ranges(quantized)
    wanted = dict.fromkeys(before, (-1.0, 2.0))
    assert wanted != before
    quantizer.set_ranges(quantized, wanted)
    assert quantizer.activation_ranges(quantized) == wanted
    swish = next(name for name in wanted if "wish" in name or "silu" in name)
    value = interpreter.results_of(model, [swish], outliers()[0])[swish]
    assert value.shape == (1, 8, 256, 256)
    assert -0.2785 <= value.min() < -0.2
    assert np.isfinite(interpreter.run(quantized, outliers()[:1], exact=True).outputs[0][0]).all()


@pytest.mark.parametrize(
    ("device", "expected"),
    [(None, nncf.TargetDevice.ANY), ("CPU", nncf.TargetDevice.CPU), ("NPU", nncf.TargetDevice.NPU)],
)
def test_the_device_reaches_nncf(model, transposed, monkeypatch, device, expected):
    given = {}

    def quantize(*_, **arguments):
        given.update(arguments)
        raise RuntimeError("far enough")

    monkeypatch.setattr(nncf, "quantize", quantize)
    with pytest.raises(RuntimeError, match="far enough"):
        quantizer.quantize(model, nncf.Dataset(transposed), Head.FLOAT, len(transposed), device=device)
    assert given["target_device"] is expected


def test_a_rounding_can_have_a_range_of_its_own_and_one_by_channel():
    image = ov.opset13.parameter([1, 2, 4, 4], np.float32)
    ends = [np.full((1, 2, 1, 1), value, np.float32) for value in (-1, 1, -1, 1)]
    relu = ov.opset13.relu(image, name="relu")
    one = ov.opset13.fake_quantize(relu, *ends, 256, name="one")
    other = ov.opset13.fake_quantize(relu, *[end.ravel()[0] for end in ends], 256, name="other")
    network = ov.Model([one.output(0), other.output(0)], [image])
    quantizer.set_ranges(network, {"relu": (0, 5), "one": (np.array([0, -1]), np.array([2, 3]))})
    nodes = {node.get_friendly_name(): node for node in network.get_ops()}
    for name, position, expected in (("one", 1, [0, -1]), ("one", 4, [2, 3]), ("other", 1, [0]), ("other", 2, [5])):
        value = graph.constant(nodes[name].input_value(position).get_node())
        assert value.ravel().tolist() == expected
