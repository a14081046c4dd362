import numpy as np
import pytest

from yolo_edgequant.options import IO, Granularity, Head, RangeEstimator
from yolo_edgequant.tflite import bias_correction, interpreter
from yolo_edgequant.tflite.calibrated import CalibratedGraph
from yolo_edgequant.tflite.calibration import collect
from yolo_edgequant.tflite.graph import Graph


@pytest.fixture(scope="module")
def statistics(graph, images):
    return collect(graph, images, set())


def layers(graph):
    return [op for op in graph.operations if graph.bias(op) is not None]


def test_means_are_those_of_all_values(graph, images, statistics):
    source = layers(graph)[0].inputs[0]  # the images with a border of zeros
    pixels = np.sum(images, (0, 1, 2, 3), dtype=np.float64) / len(images)
    np.testing.assert_allclose(statistics[source].mean, pixels / np.prod(graph.shape(source)[1:3]), rtol=1e-4)
    assert statistics[graph.outputs[0]].mean is None


@pytest.mark.parametrize("granularity", list(Granularity))
def test_the_shift_is_what_rounding_adds_to_a_constant_input(graph, granularity):
    """With one value per input channel everywhere, the mean shift is the shift of every pixel away from the edges."""
    op = next(op for op in layers(graph) if op.kind == "CONV_2D" and graph.shape(op.inputs[1])[1] == 3)
    weights = graph.constant(op.inputs[1])
    mean = np.random.default_rng(0).random(weights.shape[3])
    largest = np.abs(weights).max((1, 2, 3) if granularity == "channel" else None, keepdims=True)
    rounded = np.round(weights / (largest / 127)) * (largest / 127)
    expected = [((rounded - weights)[o] * mean).sum() for o in range(len(weights))]
    np.testing.assert_allclose(bias_correction.expected_shift(graph, op, mean, granularity), expected, atol=1e-6)


def test_outputs_of_integer_layers_come_closer_on_average(graph, images, statistics):
    """Means over images of each channel, where no activation clips them: of the last convolutions."""
    calibrated = CalibratedGraph(graph, RangeEstimator.MINMAX, statistics, frozenset())
    names = [graph.name(op.outputs[0]) for op in layers(graph) if graph.silu(op.outputs[0]) is None]
    assert len(names) == 6

    def means(quantized):
        every = [interpreter.values(quantized, image) for image in images]
        return np.mean([np.concatenate([values[name].mean((0, 1, 2)) for name in names]) for values in every], 0)

    expected = means(graph)
    plain, corrected = (
        means(Graph(calibrated.quantize(Head.INT8, Granularity.TENSOR, IO.INT8, correct_bias=correct)))
        for correct in (False, True)
    )
    assert np.abs(corrected - expected).mean() < 0.7 * np.abs(plain - expected).mean()


def test_layers_in_float_are_left_alone(graph, statistics):
    chosen = layers(graph)
    content = bias_correction.correct_biases(graph, statistics, Granularity.TENSOR, {chosen[0].index})
    corrected = Graph(content)
    before = [graph.constant(op.inputs[2]) for op in chosen]
    after = [corrected.constant(corrected.operations[op.index].inputs[2]) for op in chosen]
    np.testing.assert_array_equal(after[0], before[0])
    for op, one, other in zip(chosen[1:], before[1:], after[1:], strict=True):
        shift = bias_correction.expected_shift(graph, op, statistics[op.inputs[0]].mean, Granularity.TENSOR)
        np.testing.assert_allclose(other, one - shift, atol=1e-5)
