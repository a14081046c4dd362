import numpy as np
import pytest

from tests.graphs import NAMES, RAW_OUTPUTS, raw_detector
from yolo_edgequant.demo.dataset import picture
from yolo_edgequant.options import IO, Granularity, Head
from yolo_edgequant.tflite import calibrated as calibration
from yolo_edgequant.tflite import candidate_cells, score_alignment
from yolo_edgequant.tflite.graph import Graph
from yolo_edgequant.tflite.weights import WeightEditor


@pytest.fixture(scope="module")
def pictures():
    drawn = [picture(160, np.random.default_rng(i))[0] for i in range(16)]
    return [np.ascontiguousarray(image[None, ..., ::-1].astype(np.float32) / 255) for image in drawn]


@pytest.fixture(scope="module", params=["levels", "merged", "grid", "decoded"])
def calibrated(request, detector, pictures):
    """The graph with its statistics, and its cells."""
    if request.param == "decoded":
        graph = Graph(detector)
        cells = candidate_cells.of_decoded(graph, [400, 100, 25], len(NAMES))
    else:
        graph = Graph(raw_detector(detector, request.param))
        outputs = RAW_OUTPUTS
        if request.param == "merged":
            outputs = [type(RAW_OUTPUTS[0])(name) for name in ("boxes", "scores")]
        cells = candidate_cells.of_raw(graph, outputs)
    logits = [] if request.param == "decoded" else [i for i, o in enumerate(outputs) if o.name == "scores"]
    compared = [op.outputs[0] for op in score_alignment.score_layers(graph, cells)]
    return calibration.calibrate(graph, iter(pictures), logits, cells, compared=compared), cells


def shifted(graph, op, change):
    """The graph whose layer has another bias."""
    editor = WeightEditor(graph)
    bias = graph.bias(op)
    editor.replace(op, bias, graph.constant(op.inputs[bias]) + change)
    return Graph(editor.content())


def quantized(calibrated):
    return calibrated.quantize(Head.INT8, Granularity.CHANNEL, IO.FLOAT)


def test_the_layers_are_those_of_the_classes_the_largest_map_first(calibrated):
    found, cells = calibrated
    layers = score_alignment.score_layers(found.graph, cells)
    assert [found.graph.shape(op.outputs[0]) for op in layers] == [(1, n, n, len(NAMES)) for n in (20, 10, 5)]


def test_a_shift_of_one_level_is_measured_there(calibrated, pictures):
    found, cells = calibrated
    graph = found.graph
    layers = score_alignment.score_layers(graph, cells)
    lower = shifted(graph, layers[1], np.float32(-0.75))
    shifts = score_alignment.measure(found, layers, lower.content, pictures)
    assert [shift.median for shift in shifts] == pytest.approx([0, -0.75, 0], abs=1e-4)
    assert [shift.systematic for shift in shifts] == [False, True, False]


def test_what_quantization_takes_is_given_back(calibrated, pictures):
    """Here by a range of the last layer's input that clips, which hits the surest objects most."""
    found, cells = calibrated
    graph = found.graph
    layers = score_alignment.score_layers(graph, cells)
    clipped = layers[0].inputs[0]

    class Clipping(type(found)):
        def ranges(self, in_float=()):
            ranges = super().ranges(in_float)
            return {**ranges, clipped: (ranges[clipped][0], ranges[clipped][1] * 0.4)}

    broken = Clipping(graph, found.estimator, found.statistics, found.logits)
    file = quantized(broken)
    before = score_alignment.measure(found, layers, file, pictures)[0]
    assert before.median < -0.2
    assert before.systematic
    aligned = score_alignment.align(broken, cells, file, pictures)
    after = score_alignment.measure(found, layers, quantized(aligned), pictures)[0]
    assert abs(after.median) < 0.2 * abs(before.median)
    bias = graph.bias(layers[0])
    added = aligned.graph.constant(layers[0].inputs[bias]) - graph.constant(layers[0].inputs[bias])
    np.testing.assert_allclose(added, -before.median, rtol=1e-4)  # of every class


def test_ranges_hold_what_biases_add(calibrated, pictures):
    found, cells = calibrated
    layers = score_alignment.score_layers(found.graph, cells)
    lower = shifted(found.graph, layers[1], np.float32(-0.75))
    aligned = score_alignment.align(found, cells, lower.content, pictures)
    before, after = found.ranges(), aligned.ranges()
    tensor = layers[1].outputs[0]
    assert after[tensor][1] == pytest.approx(before[tensor][1] + 0.75, abs=1e-3)
    first = min(op.index for op in layers)
    others = {op.outputs[0] for op in found.graph.operations if op.index < first}
    assert {t: after[t] for t in others & after.keys()} == {t: before[t] for t in others & before.keys()}
    assert all(after[t][1] >= before[t][1] for t in before)


def test_where_nothing_is_systematic_nothing_is_changed(calibrated, pictures):
    found, cells = calibrated
    assert score_alignment.align(found, cells, found.graph.content, pictures) is None
