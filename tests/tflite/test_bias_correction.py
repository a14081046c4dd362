import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from yolo_edgequant import pipeline
from yolo_edgequant.quantization import bias
from yolo_edgequant.tflite.calibration import collect
from yolo_edgequant.tflite.graph import Graph


@pytest.fixture(scope="module")
def statistics(detector, images):
    return collect(detector, images, set())


def layers(graph):
    return [op for op in graph.operations if graph.bias(op) is not None]


def test_means_are_those_of_all_values(detector, graph, images, statistics):
    source = layers(graph)[0].inputs[0]  # the images with a border of zeros
    pixels = np.sum(images, (0, 1, 2, 3), dtype=np.float64) / len(images)
    np.testing.assert_allclose(statistics[source].mean, pixels / np.prod(graph.shape(source)[1:3]), rtol=1e-4)
    assert statistics[graph.outputs[0]].mean is None


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_the_shift_is_what_rounding_adds_to_a_constant_input(graph, granularity):
    """With one value per input channel everywhere, the mean shift is the shift of every pixel away from the edges."""
    op = next(op for op in layers(graph) if op.kind == "CONV_2D" and graph.shape(op.inputs[1])[1] == 3)
    weights = graph.constant(op.inputs[1])
    mean = np.random.default_rng(0).random(weights.shape[3])
    largest = np.abs(weights).max((1, 2, 3) if granularity == "channel" else None, keepdims=True)
    rounded = np.round(weights / (largest / 127)) * (largest / 127)
    expected = [((rounded - weights)[o] * mean).sum() for o in range(len(weights))]
    np.testing.assert_allclose(bias.shift(graph, op, mean, granularity), expected, atol=1e-6)


def test_outputs_of_integer_layers_come_closer_on_average(detector, graph, images, statistics):
    """Means over images of each channel, where no activation clips them: of the last convolutions."""
    calibrated = pipeline.Calibrated(detector, graph, collect(detector, images), frozenset())
    ends = [op.outputs[0] for op in layers(graph) if graph.silu(op.outputs[0]) is None]
    names = [graph.name(t) for t in ends]

    def means(content):
        interpreter = Interpreter(model_content=content, experimental_preserve_all_tensors=True)
        interpreter.allocate_tensors()
        source = interpreter.get_input_details()[0]
        details = {d["name"]: d for d in interpreter.get_tensor_details()}
        total = []
        for image in images:
            stored = image if source["dtype"] == np.float32 else np.round(image * 255 - 128).astype(np.int8)
            interpreter.set_tensor(source["index"], stored)
            interpreter.invoke()
            seen = []
            for name in names:
                values = interpreter.get_tensor(details[name]["index"]).astype(np.float64)
                scale, zero = details[name]["quantization"]
                seen.append(((values - zero) * scale if scale else values).mean((0, 1, 2)))
            total.append(np.concatenate(seen))
        return np.mean(total, 0)

    float_means = means(detector)
    plain = means(calibrated.quantise("int8", "tensor", "int8", "minmax", correct_bias=False))
    corrected = means(calibrated.quantise("int8", "tensor", "int8", "minmax", correct_bias=True))
    assert np.abs(corrected - float_means).mean() < 0.7 * np.abs(plain - float_means).mean()


def test_layers_in_float_are_left_alone_and_a_shared_bias_is_divided(detector, graph, statistics):
    chosen = layers(graph)
    made = Graph(bias.correct(detector, graph, statistics, "tensor", {chosen[0].index}))
    before = [graph.constant(op.inputs[2]) for op in chosen]
    after = [made.constant(made.operations[op.index].inputs[2]) for op in chosen]
    np.testing.assert_array_equal(after[0], before[0])
    for op, one, other in zip(chosen[1:], before[1:], after[1:], strict=True):
        shift = bias.shift(graph, op, statistics[op.inputs[0]].mean, "tensor")
        np.testing.assert_allclose(other, one - shift, atol=1e-5)
