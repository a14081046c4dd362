import copy

import pytest
import torch
from torch import nn
from ultralytics import YOLO

from yolo_edgequant.demo.train import WEIGHTS
from yolo_edgequant.training import rescaling
from yolo_edgequant.training.activations import swap_activation
from yolo_edgequant.training.tensor_matching import probe_image

IMAGES = [torch.from_numpy(probe_image((1, 3, 160, 160))), torch.from_numpy(probe_image((1, 3, 160, 160))).flip(3)]


def original(weights):
    model = YOLO(weights).model.float().eval()
    with torch.no_grad():  # features far beyond 6, as real models have them
        for name in ("model.0", "model.2.cv1", "model.4.cv2"):
            norm = model.get_submodule(name).bn
            norm.weight *= 20
            norm.bias *= 20
    return model


def swapped(model, activation):
    model = copy.deepcopy(model)
    swap_activation(model, activation)
    return model.eval()


def raw(model, image):
    with torch.no_grad():
        found = model(image)[1]
    return found.get("one2many", found)


@pytest.mark.parametrize("weights", [WEIGHTS, WEIGHTS.parents[2] / "tests/weights/shapes26.pt"])
def test_scaling_changes_nothing_but_the_size_of_features(weights):
    """ReLU has no bound to scale below, so what a ReLU model finds must stay."""
    model = original(weights)
    scaled = swapped(model, "relu")
    expected = raw(scaled, IMAGES[0])
    assert rescaling.scale_below_relu6(scaled, model, IMAGES) >= 2
    found = raw(scaled, IMAGES[0])
    for name in ("boxes", "scores"):
        size = expected[name].abs().max()
        assert torch.allclose(found[name], expected[name], atol=float(1e-4 * size)), name


def test_the_bound_is_out_of_the_way():
    model = original(WEIGHTS)
    largest = {}

    def watch(name):
        return lambda module, inputs, output: largest.update({name: max(largest.get(name, 0), float(output.max()))})

    scaled = swapped(model, "relu")
    before = [m for m in scaled.modules() if isinstance(m, nn.ReLU)]
    for number, module in enumerate(before):
        module.register_forward_hook(watch(number))
    raw(scaled, IMAGES[0])
    assert max(largest.values()) > 30
    largest.clear()
    rescaling.scale_below_relu6(scaled, model, IMAGES)
    raw(scaled, IMAGES[0])
    assert max(largest.values()) < 9, "a ten-thousandth of the values may lie above 6"


def test_features_that_attention_reads_keep_their_scale():
    """A product of features is not a convolution that could undo their scale."""
    model = YOLO("yolo11n.yaml").model.float().eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_var.fill_(0.05)
        model.model[10].cv1.bn.weight *= 100  # before the attention
    scaled = swapped(model, "relu")
    expected = raw(scaled, IMAGES[0])
    rescaling.scale_below_relu6(scaled, model, IMAGES)
    found = raw(scaled, IMAGES[0])
    size = float(expected["scores"].abs().max())
    assert torch.allclose(found["scores"], expected["scores"], atol=1e-4 * size)


def test_recalibrated_statistics_are_those_of_the_images():
    model = swapped(original(WEIGHTS), "relu6")
    first = model.model[0]
    momentum = first.bn.momentum
    rescaling.recalibrate_batch_norm(model, IMAGES)
    with torch.no_grad():
        values = torch.cat([first.conv(image) for image in IMAGES])
    assert torch.allclose(first.bn.running_mean, values.mean((0, 2, 3)), atol=1e-4)
    assert torch.allclose(first.bn.running_var, values.var((0, 2, 3)), rtol=0.05)
    assert first.bn.momentum == momentum
    assert not model.training
