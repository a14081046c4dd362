import numpy as np
import pytest

from tests.graphs import Network
from yolo_edgequant.int8 import SIGMOID_RANGE
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


def joined(ranges, kind="LOGISTIC"):
    """Boxes of a range joined with scores behind a reshape; what the boxes, the scores and the whole share."""
    network = Network(1, 8, 8, 3)
    boxes, logits = (network.conv(network.input, np.ones((4, 3, 3, 3))) for _ in range(2))
    scores = network.add(kind, (logits,), (1, 8, 8, 4))
    rows = [
        network.add("RESHAPE", (tensor, network.constant([1, 64, 4], np.int32)), (1, 64, 4))
        for tensor in (boxes, scores)
    ]
    whole = network.add("CONCATENATION", rows, (1, 64, 8), axis=2)
    graph = Graph(network.content(whole))
    both = min(ranges[0], 0.0), max(ranges[1], SIGMOID_RANGE[1])
    own = {boxes: ranges, rows[0]: ranges, logits: (-9.0, 3.0), whole: both}
    shared = share_scales(graph, own | {scores: SIGMOID_RANGE, rows[1]: SIGMOID_RANGE})
    assert shared[logits] == own[logits]
    assert (shared[rows[0]], shared[rows[1]]) == (shared[boxes], shared[scores])
    return shared[boxes], shared[scores], shared[whole], both


@pytest.mark.parametrize("ranges", [(0.0, 1.0), (-0.05, 1.05), (-0.04, 0.9), (0.1, 0.5), (0.2, 1.03)])
def test_boxes_joined_with_scores_take_the_steps_of_the_sigmoid(ranges):
    """A box is cut off at the image's side; no score is rounded again."""
    boxes, scores, whole, _ = joined(ranges)
    assert boxes == scores == whole == SIGMOID_RANGE == (0.0, 255 / 256)


@pytest.mark.parametrize("ranges", [(-0.06, 1.0), (0.0, 1.06), (-0.3, 1.4), (0.0, 160.0)])
def test_boxes_far_beyond_the_image_keep_their_range(ranges):
    boxes, _, whole, both = joined(ranges)
    assert boxes == whole == both


@pytest.mark.parametrize("ranges", [(0.0, 1.0), (-0.05, 1.05)])
def test_without_a_sigmoid_no_range_is_cut(ranges):
    boxes, _, whole, both = joined(ranges, "TANH")
    assert boxes == whole == both
