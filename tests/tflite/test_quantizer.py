import numpy as np
import pytest

from yolo_edgequant.options import IO, Granularity, Head
from yolo_edgequant.tflite import interpreter, packing, quantizer
from yolo_edgequant.tflite.calibrated import calibrate
from yolo_edgequant.tflite.graph import Graph


@pytest.fixture(scope="module")
def quantized(small, pictures):
    return calibrate(small, pictures).quantize(Head.INT8, Granularity.CHANNEL, IO.INT8)


def test_unsigned_ends_are_a_requantization_of_the_same_scale(quantized, pictures):
    content = quantizer.unsigned_io(quantized)
    signed, unsigned = interpreter.run(quantized, pictures), interpreter.run(content, pictures)
    assert [tensor.dtype for tensor in unsigned.tensors] == [np.uint8]
    assert unsigned.tensors[0].scale == signed.tensors[0].scale
    for (one,), (other,) in zip(signed.outputs, unsigned.outputs, strict=True):
        np.testing.assert_array_equal(one.astype(int) + 128, other)
    graph = Graph(content)
    assert [graph.operations[0].kind, graph.operations[-1].kind] == ["QUANTIZE", "QUANTIZE"]
    assert len(graph.operations) == len(Graph(quantized).operations) + 2
    (signature,) = packing.unpack(content).signatureDefs
    assert [entry.tensorIndex for entry in (*signature.inputs, *signature.outputs)] == [*graph.inputs, *graph.outputs]


@pytest.mark.parametrize(
    ("write", "bytes_a_weight", "bound"), [(quantizer.weights_only, 1, 0.05), (quantizer.half_precision, 2, 1e-3)]
)
def test_shorter_weights_alone(small, pictures, write, bytes_a_weight, bound):
    content = write(small.content)
    packing.check_inside(content)
    weights = sum(small.constant(op.kernel).size for op in small.operations if op.kernel is not None)
    assert weights * bytes_a_weight < len(content) < weights * bytes_a_weight + 20_000
    graph = Graph(content)
    assert {graph.dtype(t) for t in (*graph.inputs, *graph.outputs)} == {"FLOAT32"}
    for (one,), (other,) in zip(*(interpreter.run(c, pictures).outputs for c in (small.content, content)), strict=True):
        assert 0 < np.abs(one - other).max() < bound
