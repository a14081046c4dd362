import nncf
import numpy as np
import openvino as ov
import pytest
import torch
from torch import nn

from yolo_edgequant.openvino import graph, interpreter, quantizer
from yolo_edgequant.openvino.bias_correction import correct_biases, expected_shift
from yolo_edgequant.openvino.calibration import collect
from yolo_edgequant.openvino.conversion import to_openvino
from yolo_edgequant.options import Head

pytestmark = pytest.mark.export

PICTURES = [picture + 1 for picture in np.random.default_rng(0).random((6, 1, 4, 12, 12), np.float32)]

LAYERS = {
    "convolution": lambda: nn.Conv2d(4, 8, 3),
    "by group": lambda: nn.Conv2d(4, 8, 3, groups=2),
    "depthwise": lambda: nn.Conv2d(4, 4, 3, groups=4),
    "transposed": lambda: nn.ConvTranspose2d(4, 8, 2, 2),
    "transposed by group": lambda: nn.ConvTranspose2d(4, 8, 2, 2, groups=2),
    "product": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 8)),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_the_expected_shift_is_the_mean_of_what_an_error_of_the_weights_adds(kind):
    torch.manual_seed(0)
    module = LAYERS[kind]().eval()
    model = to_openvino(module, torch.zeros(1, 4, 12, 12))
    (layer,) = graph.layers(model)
    weights = interpreter.constant_values([layer.input_value(1)])[0]
    error = np.random.default_rng(1).normal(0, 0.1, weights.shape)
    mean = collect(model, model, PICTURES).means[layer.get_friendly_name()]
    before = np.concatenate([results[0] for results in interpreter.run(model, PICTURES, exact=True).outputs])
    layer.input(1).replace_source_output(ov.opset13.constant((weights + error).astype(np.float32)).output(0))
    after = np.concatenate([results[0] for results in interpreter.run(model, PICTURES, exact=True).outputs])
    added = (after - before).mean(tuple(axis for axis in range(before.ndim) if axis != 1))
    np.testing.assert_allclose(expected_shift(layer, error, mean), added, atol=0.02 * np.abs(added).max())


def test_a_quantized_model_with_corrected_biases_has_the_float_models_means():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(4, 8, 1), nn.SiLU(), nn.Conv2d(8, 8, 1)).eval()
    with torch.no_grad():
        layers[2].weight[:, 0] *= 60  # the largest weight makes the steps of all others wide
        layers[2].bias[0] = 0  # for which NNCF leaves a layer alone
    model = to_openvino(layers, torch.zeros(1, 4, 12, 12))
    quantized = quantizer.quantize(model, nncf.Dataset(PICTURES), Head.RAW, 6, correct_bias=False)
    expected = interpreter.run(model, PICTURES, exact=True)

    def error(candidate):
        outputs = interpreter.run(candidate, PICTURES, exact=True)
        pairs = zip(outputs.outputs, expected.outputs, strict=True)
        return np.abs(np.mean([(a[0] - b[0]).mean((0, 2, 3)) for a, b in pairs], 0)).mean()

    before = error(quantized)
    assert correct_biases(quantized, model, collect(model, quantized, PICTURES).means) == 2
    assert error(quantized) < 0.5 * before


def test_a_layer_without_a_bias_or_in_float_is_left_alone():
    model = to_openvino(nn.Conv2d(4, 8, 1, bias=False).eval(), torch.zeros(1, 4, 12, 12))
    quantized = quantizer.quantize(model, nncf.Dataset(PICTURES), Head.RAW, 6, correct_bias=False)
    assert correct_biases(quantized, model, {}) == 0
    assert correct_biases(model.clone(), model, {}) == 0
