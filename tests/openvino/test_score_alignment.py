import nncf
import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from yolo_edgequant.openvino import graph, quantizer, score_alignment
from yolo_edgequant.openvino.calibration import collect
from yolo_edgequant.options import Head

pytestmark = pytest.mark.export

CLASSES = 6
RANDOM = np.random.default_rng(0)
IMAGES = list(RANDOM.random((20, 1, 3, 16, 16), np.float32))


def layer(source, channels, name, bias=-2.0, stride=1):
    weights = np.random.default_rng(channels + stride).normal(0, 2, (channels, source.get_output_shape(0)[1], 1, 1))
    convolution = ops.convolution(
        source, weights.astype(np.float32), [stride] * 2, [0, 0], [0, 0], [1, 1], name=f"{name} of {stride}"
    )
    value = np.full((1, channels, 1, 1), bias, np.float32)
    return ops.add(convolution, value, name=f"{name} bias of {stride}")


def detector(raw=False, angle=None):
    """Two levels of boxes and of class logits; decoded, with the sigmoid of the logits and perhaps that of an angle."""
    image = ops.parameter([1, 3, 16, 16], np.float32, name="image")
    backbone = ops.swish(layer(image, 8, "backbone", 0.0))
    flat = {}
    for name, channels in (("boxes", 4), ("scores", CLASSES), *([("angle", angle)] if angle else ())):
        maps = [layer(backbone, channels, name, stride=stride) for stride in (1, 2)]
        flat[name] = [ops.reshape(values, [1, channels, -1], False) for values in maps]
    if raw:
        return ov.Model([ops.result(values) for name in ("boxes", "scores") for values in flat[name]], [image])
    joined = {name: ops.concat(values, 2) for name, values in flat.items()}
    parts = [ops.multiply(joined["boxes"], np.float32(2)), ops.sigmoid(joined["scores"], name="sigmoid")]
    if angle:
        parts.append(ops.sigmoid(joined["angle"]))
    return ov.Model([ops.result(ops.concat(parts, 1, name="detections"))], [image])


SCORES = ["scores of 1", "scores of 2"]


def shifted(model, change, name="scores of 2"):
    """A copy whose layer has another bias."""
    changed = model.clone()
    node = next(node for node in changed.get_ops() if node.get_friendly_name() == name)
    graph.add_to_bias(node, np.full(node.get_output_shape(0)[1], change))
    return changed


@pytest.fixture(scope="module", params=["decoded", "int8", "raw"])
def models(request):
    """A float model, its INT8 model and the float model's logits."""
    head = {"decoded": Head.FLOAT, "int8": Head.INT8, "raw": Head.RAW}[request.param]
    model = detector(head == Head.RAW)
    quantized = quantizer.quantize(model, nncf.Dataset(IMAGES), head, len(IMAGES))
    layers = score_alignment.score_layers(model, CLASSES, (2, 3) if head == Head.RAW else ())
    return model, quantized, collect(model, quantized, IMAGES, layers).candidates


def test_score_layers_are_told_from_others_by_their_classes(models):
    _, _, before = models
    assert list(before) == SCORES
    assert score_alignment.score_layers(detector(), CLASSES + 1) == []
    assert score_alignment.score_layers(detector(angle=1), CLASSES) == SCORES


def test_branches_that_look_alike_are_left_alone():
    assert score_alignment.score_layers(detector(angle=CLASSES), CLASSES) == []


def test_a_shift_of_one_level_is_measured_there(models):
    model, _, before = models
    shifts = score_alignment.measure(shifted(model, -0.75), before, IMAGES)
    assert [shift.median for shift in shifts] == pytest.approx([0, -0.75], abs=1e-4)
    assert shifts[1].systematic
    assert shifts[1].images == len(IMAGES)


def test_what_quantization_takes_is_given_back(models):
    _, quantized, logits = models
    low = shifted(quantized, -0.5)
    before = score_alignment.measure(low, logits, IMAGES)
    after = score_alignment.measure(score_alignment.align(low, logits, IMAGES), logits, IMAGES)
    assert before[1].median == pytest.approx(-0.5, abs=0.1)
    assert abs(after[1].median) < 0.1
    untouched = score_alignment.measure(low, logits, IMAGES)
    assert untouched == before, "the model that is aligned stays as it is"


def test_where_nothing_is_systematic_the_model_is_the_same(models):
    model, _, before = models
    assert score_alignment.align(model, before, IMAGES) is model
