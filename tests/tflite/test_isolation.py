import numpy as np
import pytest

from yolo_edgequant.errors import RecipeError
from yolo_edgequant.options import IO, Granularity, Head
from yolo_edgequant.tflite import interpreter, isolation
from yolo_edgequant.tflite.calibrated import calibrate
from yolo_edgequant.tflite.graph import Graph


@pytest.fixture(scope="module", params=list(Granularity))
def quantized(request, small, pictures):
    content = calibrate(small, pictures).quantize(Head.INT8, request.param, IO.INT8)
    return Graph(content)


def outputs(graph, pictures):
    """(B, ...) what a graph gives for the pictures, as real numbers."""
    run = interpreter.run(graph.content, pictures)
    return np.stack([run.tensors[0].values(values[0]) for values in run.outputs]).astype(np.float64)


def apart(one, other):
    return float(np.square(one - other).mean())


def test_weights_are_those_of_the_file_and_activations_stay(small, quantized, pictures):
    rounded = isolation.rounded_weights(small, quantized)
    assert [op.kind for op in rounded.operations] == [op.kind for op in small.operations]
    for ours, op in zip(rounded.operations, small.operations, strict=True):
        if not small.is_layer(op):
            continue
        weights, before = rounded.constant(ours.inputs[1]), small.constant(op.inputs[1])
        step = np.abs(before).max() / 127
        assert 0 < np.abs(weights - before).max() <= 0.51 * step
        assert len(np.unique(weights[0])) <= 255
        assert (rounded.constant(ours.inputs[2]) != small.constant(op.inputs[2])).any(), "the corrected biases"


def test_activations_are_rounded_to_the_files_grids(small, quantized, pictures):
    rounded = isolation.rounded_activations(small, quantized)
    kept, before = ([g.constant(op.inputs[1]) for op in g.operations if op.kind == "CONV_2D"] for g in (rounded, small))
    for weights, original in zip(kept, before, strict=True):
        np.testing.assert_array_equal(weights, original)
    values = interpreter.values(rounded, pictures[0])
    grids = 0
    for op in rounded.operations:
        if op.kind == "DEQUANTIZE":
            assert len(np.unique(values[rounded.name(op.outputs[0])])) <= 256
            grids += 1
    assert grids >= len([op for op in small.operations if op.kind != "MAX_POOL_2D"])


def test_both_give_what_the_file_gives(small, quantized, pictures):
    of_file, of_float = outputs(quantized, pictures), outputs(small, pictures)
    both = isolation.rounded_activations(isolation.rounded_weights(small, quantized), quantized)
    assert apart(outputs(both, pictures), of_file) < apart(of_float, of_file) / 20
    for part in (isolation.rounded_weights(small, quantized), isolation.rounded_activations(small, quantized)):
        assert apart(outputs(part, pictures), of_file) > 2 * apart(outputs(both, pictures), of_file)


def test_a_tensor_can_be_left_as_it_is(small, quantized, pictures):
    every = [tensor for op in small.operations for tensor in op.outputs]
    none = isolation.rounded_activations(small, quantized, [*every, *small.inputs])
    assert [op.kind for op in none.operations] == [op.kind for op in small.operations]
    np.testing.assert_array_equal(outputs(none, pictures), outputs(small, pictures))
    but_one = isolation.rounded_activations(small, quantized, [small.operations[0].outputs[0]])
    all_of_them = isolation.rounded_activations(small, quantized)
    assert len(all_of_them.operations) - len(but_one.operations) == 2


def test_what_is_requantized_for_one_reader_is_rounded_twice_for_it_alone(graph, images):
    """Concatenations read some inputs in the scale of the whole, and what else reads these does not."""
    file = Graph(calibrate(graph, images[:2]).quantize(Head.INT8, Granularity.CHANNEL, IO.INT8))
    requantized = [op for op in file.operations if op.kind == "QUANTIZE" and op.inputs[0] in file.producer]
    rounded = isolation.rounded_activations(graph, file)
    twice = [
        rounded.producer[op.inputs[0]].inputs[0]
        for op in rounded.operations
        if op.kind == "QUANTIZE" and op.inputs[0] in rounded.producer
        if rounded.producer[op.inputs[0]].kind == "DEQUANTIZE"
    ]
    assert len(twice) == len(requantized) > 5
    assert any(any(reader.kind != "QUANTIZE" for reader in rounded.consumers[_end(rounded, t)]) for t in twice)


def _end(graph, tensor):
    """What comes out where a tensor is rounded once."""
    return graph.consumers[tensor][0].outputs[0]


def test_a_file_of_another_graph_is_refused(small, quantized, graph):
    with pytest.raises(RecipeError, match=r"^the INT8 file has no \w+ that computes '"):
        isolation.rounded_weights(graph, quantized)
