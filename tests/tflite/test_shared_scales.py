import numpy as np
import pytest

from tests.graphs import Network
from yolo_edgequant.options import IO, Granularity, Head, RangeEstimator
from yolo_edgequant.tflite import calibrated, ranges
from yolo_edgequant.tflite.calibration import collect
from yolo_edgequant.tflite.graph import Graph
from yolo_edgequant.tflite.shared_scales import share_scales

MOVES = {"SLICE", "MAX_POOL_2D", "RESIZE_NEAREST_NEIGHBOR", "RESHAPE", "TRANSPOSE", "PAD"}


@pytest.fixture(scope="module")
def statistics(graph, images):
    return collect(graph, images)


@pytest.fixture(scope="module")
def own(graph, statistics):
    return ranges.estimate(RangeEstimator.ACTIVATION, graph, statistics)


def concatenated(graph):
    """Each concatenation with the tensors that it has its values from, through what only moves or picks them."""
    for op in graph.operations:
        if op.kind == "CONCATENATION":
            sources = []
            for tensor in op.inputs:
                while graph.producer[tensor].kind in MOVES:
                    tensor = graph.producer[tensor].inputs[0]
                sources.append(tensor)
            yield op, sources


def readers(graph, tensor):
    """Kinds of the operations that read a tensor, or a slice of it."""
    direct = graph.consumers[tensor]
    sliced = [op for slice_ in direct if slice_.kind == "SLICE" for op in graph.consumers[slice_.outputs[0]]]
    return {op.kind for op in direct + sliced}


def test_what_only_a_concatenation_reads_has_its_range(graph, own):
    """The pooled values at the end of the backbone, and the first half of each block."""
    shared = share_scales(graph, own)
    pooling = [op for op in graph.operations if op.kind == "MAX_POOL_2D"]
    (end,) = {r.outputs[0] for op in pooling for r in graph.consumers[op.outputs[0]] if r.kind == "CONCATENATION"}
    assert {shared[op.outputs[0]] for op in pooling} == {shared[end]}
    assert own[end] not in {own[op.outputs[0]] for op in pooling}
    alone = [(op, t) for op, sources in concatenated(graph) for t in sources if readers(graph, t) == {"CONCATENATION"}]
    assert len(alone) > 5
    assert all(shared[t] == shared[op.outputs[0]] for op, t in alone)


def test_what_others_read_too_keeps_its_own(graph, own):
    shared = share_scales(graph, own)
    several = [t for _, sources in concatenated(graph) for t in sources if {"CONV_2D", "ADD"} & readers(graph, t)]
    assert len(several) > 5
    assert all(shared[t] == own[t] for t in several)


def test_a_concatenation_holds_no_more_than_it_was_to_nor_than_its_inputs(graph, own):
    """Ranges of boxes and keypoints leave out what no detection holds: the inputs' ranges must not bring it back."""
    (op, sources), *_ = concatenated(graph)
    end = op.outputs[0]
    low, high = own[end]
    assert share_scales(graph, {**own, end: (low / 2, high / 2)})[end] == (low / 2, high / 2)
    narrow = {t: (own[t][0] / 2, own[t][1] / 2) for t in sources}
    union = (min(low for low, _ in narrow.values()), max(high for _, high in narrow.values()))
    assert share_scales(graph, {**own, **narrow})[end] == union


def test_ranges_before_silu_stay(graph, own):
    shared = share_scales(graph, own)
    before_silu = [t for t in own if graph.silu(t) is not None]
    assert before_silu
    assert all(shared[t] == own[t] for t in before_silu)


def test_integer_files_then_round_nothing_anew(pictures, monkeypatch):
    random = np.random.default_rng(0)
    network = Network(1, 16, 16, 3)
    parts = [network.silu(network.conv(network.input, random.normal(0, spread, (4, 3, 3, 3)))) for spread in (0.1, 1)]
    joined = network.add("CONCATENATION", [network.max_pool(part) for part in parts], (1, 8, 8, 8), axis=3)
    graph = Graph(network.content(network.conv(joined, random.normal(0, 0.2, (4, 3, 3, 8)))))
    statistics = calibrated.calibrate(graph, pictures)

    def requantizations():
        quantized = Graph(statistics.quantize(Head.RAW, Granularity.CHANNEL, IO.INT8))
        return sum(op.kind == "QUANTIZE" for op in quantized.operations)

    assert requantizations() == 0
    monkeypatch.setattr(calibrated, "share_scales", lambda graph, ranges, in_float: ranges)
    assert requantizations() == 2


def test_inputs_of_concatenations_in_float_keep_their_ranges(graph, own):
    inside = {op.index for op in graph.decoding()}
    shared = share_scales(graph, own, inside)
    ends = [
        t
        for op, sources in concatenated(graph)
        if op.index in inside
        for t in sources
        if graph.is_layer(graph.producer[t])
    ]
    assert len(ends) == 6
    assert all(shared[t] == own[t] for t in ends)
    assert any(share_scales(graph, own)[t] != own[t] for t in ends)
