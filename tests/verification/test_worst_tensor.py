import numpy as np
import pytest

from yolo_edgequant import pipeline
from yolo_edgequant.verification import culprit


@pytest.fixture(scope="module")
def calibrated(detector, images):
    return pipeline.calibrate(detector, iter(images))


def test_a_tensor_with_a_wrong_range_is_named(calibrated, graph, images, monkeypatch):
    chosen = calibrated.ranges("activation")
    victim = next(op.outputs[0] for op in graph.operations[60:] if graph.is_layer(op) and graph.silu(op.outputs[0]))
    chosen[victim] = (-5000.0, 5000.0)
    monkeypatch.setattr(pipeline.Calibrated, "ranges", lambda self, estimator, in_float: chosen)
    name, left = culprit.of_tflite(calibrated.content, calibrated.quantise("int8", "channel", "int8"), images[0])
    assert name == graph.name(victim)
    assert left < 0.2


def test_scores_lost_beside_pixels_are_seen():
    random = np.random.default_rng(0)
    boxes, scores = random.random((1, 4, 500)) * 640, random.random((1, 20, 500))
    reference = np.concatenate((boxes, scores), 1)
    made = np.concatenate((np.round(boxes / 2.5) * 2.5, np.zeros_like(scores)), 1)
    assert np.square(reference - made).mean() / reference.var() < 0.01, "of the whole tensor next to nothing is lost"
    assert culprit.fidelity(reference, made) < 0.2
    assert culprit.fidelity(reference, reference) == 1


def test_openvino(images):
    import openvino as ov
    from openvino import opset13 as ops

    def model(step):
        source = ops.parameter([1, 160, 160, 3], name="image")
        first = ops.multiply(source, np.float32(2), name="first")
        second = ops.add(first, np.float32(1), name="second")
        rounded = ops.multiply(ops.round(ops.divide(second, np.float32(step))), np.float32(step), name="third")
        return ov.Model([ops.multiply(rounded, np.float32(3), name="last")], [source])

    name, left = culprit.of_openvino(model(1e-3), model(100), images[0])
    assert left < 0.1
    assert name not in {"first", "second", "last"}
