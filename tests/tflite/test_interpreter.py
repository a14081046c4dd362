import numpy as np
import pytest

from yolo_edgequant.options import IO, Granularity, Head
from yolo_edgequant.tflite import interpreter
from yolo_edgequant.tflite.calibrated import calibrate
from yolo_edgequant.tflite.graph import Graph


@pytest.fixture(scope="module")
def quantized(small, pictures):
    return Graph(calibrate(small, pictures).quantize(Head.INT8, Granularity.CHANNEL, IO.INT8))


def test_a_run_has_each_images_outputs_as_stored(small, quantized, pictures):
    run = interpreter.run(quantized.content, pictures[:3])
    assert [tensor.dtype for tensor in run.tensors] == [np.int8]
    assert [[array.dtype for array in arrays] for arrays in run.outputs] == [[np.int8]] * 3
    expected = interpreter.run(small.content, pictures[:3])
    for (stored,), (values,) in zip(run.outputs, expected.outputs, strict=True):
        np.testing.assert_allclose(run.tensors[0].values(stored), values, atol=0.05)
    assert not np.array_equal(run.outputs[0][0], run.outputs[1][0]), "an output is not that of the next image"


def test_activations_are_all_by_index(small, pictures):
    activations = interpreter.activations(small, pictures[0])
    assert set(activations) == set(small.activations())
    np.testing.assert_array_equal(activations[small.inputs[0]], pictures[0])
    (output,) = interpreter.run(small.content, pictures[:1]).outputs[0]
    np.testing.assert_array_equal(activations[small.outputs[0]], output)


def test_values_of_both_graphs_have_the_same_names(small, quantized, pictures):
    reference, values = (interpreter.values(graph, pictures[0]) for graph in (small, quantized))
    assert set(reference) == {small.name(t) for op in small.operations for t in op.outputs}
    assert set(reference) <= set(values)
    for name, expected in reference.items():
        assert values[name].dtype == np.float32
        assert np.abs(values[name] - expected).mean() < 0.02 * np.abs(expected).max()


def test_steps_are_in_order_and_by_name(small):
    steps = interpreter.steps(small)
    assert [name for name, _ in steps] == [small.name(t) for op in small.operations for t in op.outputs]
    known = {small.name(tensor) for tensor in small.inputs}
    known |= {small.name(t) for op in small.operations for t in op.inputs if small.constant(t) is not None}
    for name, sources in steps:
        assert set(sources) <= known, "what is read was there before"
        known.add(name)
