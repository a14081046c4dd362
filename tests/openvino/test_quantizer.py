import nncf
import numpy as np
import openvino as ov
import pytest
import torch
from torch import nn
from ultralytics import YOLO

from yolo_edgequant.demo.train import WEIGHTS
from yolo_edgequant.errors import RecipeError
from yolo_edgequant.quantization import openvino


@pytest.fixture(scope="module")
def model():
    detector = YOLO(WEIGHTS).model.float().eval().requires_grad_(False).fuse()
    detector.model[-1].export = True
    image = torch.zeros(1, 3, 160, 160)
    detector(image)
    return ov.convert_model(torch.jit.trace(detector, image, strict=False, check_trace=False), input=image.shape)


def test_head_is_all_behind_the_detection_convolutions(model):
    names = set(openvino.head(model))
    nodes = {node.get_friendly_name(): node for node in model.get_ops()}
    kinds = [nodes[name].get_type_name() for name in names]
    assert kinds.count("Softmax") == 1
    assert kinds.count("Sigmoid") == 1
    assert kinds.count("Convolution") == 1, "the DFL expectation and no trained convolution"
    assert "Swish" not in kinds


def test_the_whole_head_stays_in_float_and_all_else_does_not(model, images):
    data = nncf.Dataset([image.transpose(0, 3, 1, 2) for image in images])
    head = set(openvino.head(model))
    quantised = openvino.quantize(model, data, "float", len(images))
    layers = [n for n in quantised.get_ops() if n.get_type_name() == "Convolution"]
    plain = [n for n in layers if n.input_value(1).get_node().get_type_name() in {"Constant", "Convert"}]
    assert len(plain) == 1, "weights without scales: only the expectation's"
    assert plain[0].get_friendly_name() in head
    for node in quantised.get_ops():
        if node.get_friendly_name() in head:
            sources = [v.get_node() for v in node.input_values()]
            assert not any(s.get_type_name() == "FakeQuantize" for s in sources), node.get_friendly_name()


def test_a_model_without_a_head_is_refused():
    layer = nn.Conv2d(3, 4, 3).eval()
    bare = ov.convert_model(layer, example_input=torch.zeros(1, 3, 8, 8), input=[1, 3, 8, 8])
    with pytest.raises(RecipeError, match="matched nothing"):
        openvino.quantize(bare, nncf.Dataset([np.zeros((1, 3, 8, 8), np.float32)]), "float", 1)


def network():
    """Six convolutions, of which the second leaves its first channel, the one that matters, a 300th of its 8 bits."""
    torch.manual_seed(0)
    layers = [layer for i in range(6) for layer in (nn.Conv2d(8 if i else 3, 8, 3, padding=1), nn.ReLU())][:-1]
    layers[2].weight.data[1:] *= 300
    layers[2].bias.data[1:] *= 300
    layers[4].weight.data[:, 1:] *= 1e-4
    return ov.convert_model(nn.Sequential(*layers).eval(), example_input=torch.zeros(1, 3, 8, 8), input=[1, 3, 8, 8])


@pytest.fixture(scope="module")
def pair():
    """A float model, the same quantised, and pictures for both."""
    pictures = list(np.random.default_rng(0).random((8, 1, 3, 8, 8), np.float32))
    return network(), openvino.quantize(network(), nncf.Dataset(pictures), "raw", len(pictures)), pictures


def error(model, pair):
    plain, _, pictures = pair
    expected, made = (np.concatenate([r[0] for r in openvino.run(m, pictures).outputs]) for m in (plain, model))
    return np.square(made - expected).mean() / expected.var((0, 2, 3)).mean()


def test_layers_go_back_to_float_with_their_weights_and_biases(pair):
    plain, quantised, _ = pair
    names = openvino.quantised_layers(quantised, plain)
    assert len(names) == 6
    some = openvino.in_float(quantised, plain, names[1:3])
    assert openvino.quantised_layers(some, plain) == [names[0], *names[3:]]
    assert openvino.quantised_layers(quantised, plain) == names, "it is a copy"
    assert error(openvino.in_float(quantised, plain, names), pair) < 1e-10
    assert error(openvino.in_float(quantised, plain, []), pair) == error(quantised, pair) > 1e-4


def test_the_layer_that_costs_most_alone_is_the_one_that_helps_most_in_float(pair):
    plain, quantised, _ = pair
    names = openvino.quantised_layers(quantised, plain)
    alone = {n: error(openvino.in_float(quantised, plain, [o for o in names if o != n]), pair) for n in names}
    without = {n: error(openvino.in_float(quantised, plain, [n]), pair) for n in names}
    assert 0 < min(alone.values()) < max(alone.values()) < error(quantised, pair)
    assert max(alone, key=alone.get) == min(without, key=without.get)


def outliers():
    """Pictures with one value of each channel far outside."""
    pictures = np.random.default_rng(0).random((8, 1, 3, 256, 256), np.float32)
    pictures[..., 7, 9] = 1000
    return list(pictures)


def wide():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.SiLU(), nn.Conv2d(8, 8, 1)).eval()
    return ov.convert_model(model, example_input=torch.zeros(1, 3, 256, 256), input=[1, 3, 256, 256])


def test_ranges_can_be_replaced():
    model = wide()
    made = openvino.quantize(model, nncf.Dataset(outliers()), "raw", 8, correct_bias=False)
    wanted = dict.fromkeys(openvino.activation_ranges(made), (-1.0, 2.0))
    openvino.set_ranges(made, wanted)
    assert openvino.activation_ranges(made) == wanted
    image = outliers()[0]
    swish = next(name for name in wanted if "wish" in name or "silu" in name)
    value = openvino.values(model, [swish], image)[swish]
    assert value.shape == (1, 8, 256, 256)
    assert -0.2785 <= value.min() < -0.2
    compiled = ov.compile_model(made, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert np.isfinite(compiled(image)[0]).all()
