import numpy as np
import pytest

from yolo_edgequant.options import IO, Granularity, Head
from yolo_edgequant.tflite import interpreter
from yolo_edgequant.tflite.calibrated import CalibratedGraph, calibrate
from yolo_edgequant.tflite.graph import Graph
from yolo_edgequant.verification.worst_tensor import fidelity, worst_tensor


def test_a_tensor_with_a_wrong_range_is_named(graph, images, monkeypatch):
    calibrated = calibrate(graph, iter(images[:4]))
    ranges = calibrated.ranges()
    victim = next(op.outputs[0] for op in graph.operations[60:] if graph.is_layer(op) and graph.silu(op.outputs[0]))
    ranges[victim] = (-5000.0, 5000.0)
    monkeypatch.setattr(CalibratedGraph, "ranges", lambda self, in_float: ranges)
    quantized = Graph(calibrated.quantize(Head.INT8, Granularity.CHANNEL, IO.INT8))
    values = (interpreter.values(part, images[0]) for part in (graph, quantized))
    name, left = worst_tensor(interpreter.steps(graph), *values)
    assert name == graph.name(victim)
    assert left < 0.2


def test_the_step_that_loses_most_is_named_not_what_only_hands_it_on():
    signal = np.random.default_rng(0).normal(size=(1, 8, 8, 4))
    noise = np.random.default_rng(1).normal(size=signal.shape)
    steps = [("a", ["image"]), ("b", ["a"]), ("c", ["b"]), ("missing", ["c"])]
    reference = {"a": signal, "b": signal * 2, "c": signal * 3, "missing": signal}
    quantized = {"a": signal + noise * 0.1, "b": signal * 2 + noise * 1.5, "c": signal * 3 + noise * 2.2}
    name, left = worst_tensor(steps, reference, quantized)
    assert name == "b"
    assert left == pytest.approx(1 - 1.5**2 / 4, abs=0.1)


def test_scores_lost_beside_pixels_are_seen():
    random = np.random.default_rng(0)
    boxes, scores = random.random((1, 4, 500)) * 640, random.random((1, 20, 500))
    reference = np.concatenate((boxes, scores), 1)
    quantized = np.concatenate((np.round(boxes / 2.5) * 2.5, np.zeros_like(scores)), 1)
    assert np.square(reference - quantized).mean() / reference.var() < 0.01, "of the whole next to nothing is lost"
    assert fidelity(reference, quantized) < 0.2
    assert fidelity(reference, reference) == 1
