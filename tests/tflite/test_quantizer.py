import numpy as np
import pytest

from tests.graphs import Network
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


def joins_scores(reaches=0.6, scores_too=False):
    """A graph that joins boxes, up to about `reaches`, with a sigmoid, which is an output of its own if asked for."""
    random = np.random.default_rng(0)
    network = Network(1, 16, 16, 3)
    pooled = network.max_pool(network.input)  # has one scale at both ends, too
    boxes = network.conv(pooled, random.normal(0, 0.01, (4, 3, 3, 3)), np.full(4, reaches - 0.1))
    logits = network.conv(pooled, random.normal(0, 0.4, (4, 3, 3, 3)))
    scores = network.add("LOGISTIC", (logits,), network.shape(logits))
    whole = network.add("CONCATENATION", (boxes, scores), (1, 8, 8, 8), axis=3)
    return Graph(network.content(whole, *([scores] if scores_too else [])))


def with_and_without_idle(graph, pictures):
    """What ai-edge-quantizer writes, its constants moved inside, and what we make of it."""
    calibrated = calibrate(graph, pictures)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantizer, "_drop_idle", lambda model: None)
        whole = calibrated.quantize(Head.INT8, Granularity.CHANNEL, IO.INT8)
    return whole, calibrated.quantize(Head.INT8, Granularity.CHANNEL, IO.INT8)


def requantizations(content):
    graph = Graph(content)
    return [op for op in graph.operations if op.kind == "QUANTIZE"]


def test_no_requantization_to_the_scale_that_is_there_already(pictures):
    whole, content = with_and_without_idle(joins_scores(), pictures)
    assert len(requantizations(whole)) == 1, "ai-edge-quantizer puts one behind a sigmoid"
    assert requantizations(content) == []
    kinds, before = ([op.kind for op in Graph(c).operations] for c in (content, whole))
    assert kinds == [kind for kind in before if kind != "QUANTIZE"]
    for one, other in zip(*(interpreter.run(c, pictures).outputs for c in (whole, content)), strict=True):
        np.testing.assert_array_equal(one[0], other[0])
    assert len({value for (values,) in interpreter.run(content, pictures).outputs for value in values.ravel()}) > 100


def test_a_requantization_to_another_scale_stays(pictures):
    whole, content = with_and_without_idle(joins_scores(reaches=3), pictures)
    assert len(requantizations(content)) == len(requantizations(whole)) == 1
    assert whole == content


def test_a_requantization_that_gives_an_output_of_the_graph_stays(pictures):
    """Its tensor has the output's name and place."""
    whole, content = with_and_without_idle(joins_scores(scores_too=True), pictures)
    (op,) = requantizations(content)
    assert op.outputs[0] in Graph(content).outputs
    assert whole == content


def test_float_ends_are_converted_even_so(small, pictures):
    content = calibrate(small, pictures).quantize(Head.INT8, Granularity.CHANNEL, IO.FLOAT)
    kinds = [op.kind for op in Graph(content).operations]
    assert (kinds[0], kinds[-1]) == ("QUANTIZE", "DEQUANTIZE")


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


CELLS = (2 * np.arange(16) + 1) / 32  # centres of 16 cells


@pytest.mark.parametrize(
    ("values", "grid"),
    [
        (CELLS, (1 / 32, -128)),
        (np.concatenate((CELLS, (2 * np.arange(8) + 1) / 16)), (1 / 32, -128)),
        (CELLS - 0.5, (1 / 32, -113)),
        ([-3.0, -1.0], (1.0, -125)),
        ([0.25, 0.0], (0.25, -128)),
        ([0.5, 127.5], (0.5, -128)),
        ([0.5, 128.0], None),
        ([-64.0, 0.5, 64.0], None),
        ([0.3, 0.5], None),
        ([0.0, 0.0], None),
    ],
)
def test_a_grid_that_holds_all_values(values, grid):
    values = np.asarray(values, np.float32)
    if grid is None:
        assert quantizer.grid_of(values) is None
        return
    step, zero = quantizer.grid_of(values)
    assert (step, zero) == (pytest.approx(grid[0]), grid[1])
    stored = np.round(values / step) + zero
    assert stored.min() >= -128
    assert stored.max() <= 127
    np.testing.assert_allclose((stored - zero) * step, values, rtol=1e-5)


def moved(anchors):
    """A convolution's results moved to anchors, and its quantized file."""
    random = np.random.default_rng(0)
    network = Network(1, 16, 16, 3)
    offsets = network.conv(network.input, random.normal(0, 0.01, (2, 3, 3, 3)), np.zeros(2))
    places = network.add("ADD", (offsets, network.constant(anchors)), network.shape(offsets))
    return Graph(network.content(places))


def test_anchors_are_held_exactly(pictures):
    rows, columns = np.meshgrid(CELLS, CELLS, indexing="ij")
    anchors = np.stack((columns, rows), 2)[None].astype(np.float32)
    graph = moved(anchors)
    content = calibrate(graph, pictures).quantize(Head.INT8, Granularity.CHANNEL, IO.INT8)
    quantized = Graph(content)
    (add,) = [op for op in quantized.operations if op.kind == "ADD"]
    np.testing.assert_allclose(quantized.dequantized(add.inputs[1]), anchors, rtol=1e-6)
    run = interpreter.run(content, pictures)
    for values, exact in zip(run.outputs, interpreter.run(graph.content, pictures).outputs, strict=True):
        assert np.abs(run.tensors[0].values(values[0]) - exact[0]).max() < 1 / 255, "a step of the result at most"
