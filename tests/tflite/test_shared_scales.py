import pytest

from yolo_edgequant import pipeline
from yolo_edgequant.quantization import ranges
from yolo_edgequant.tflite.calibration import collect
from yolo_edgequant.tflite.graph import Graph
from yolo_edgequant.tflite.shared_scales import join

MOVES = {"SLICE", "MAX_POOL_2D", "RESIZE_NEAREST_NEIGHBOR", "RESHAPE", "TRANSPOSE", "PAD"}


@pytest.fixture(scope="module")
def statistics(detector, images):
    return collect(detector, images)


@pytest.fixture(scope="module")
def own(graph, statistics):
    return ranges.estimate("activation", graph, statistics)


def concatenated(graph):
    """Each concatenation with the tensors that it has its values from, through what only moves or picks them."""
    for op in graph.operations:
        if op.kind == "CONCATENATION":
            found = []
            for tensor in op.inputs:
                while graph.producer[tensor].kind in MOVES:
                    tensor = graph.producer[tensor].inputs[0]
                found.append(tensor)
            yield op, found


def readers(graph, tensor):
    """Kinds of the operations that read a tensor, or a slice of it."""
    found = graph.consumers[tensor]
    found = found + [op for slice in found if slice.kind == "SLICE" for op in graph.consumers[slice.outputs[0]]]
    return {op.kind for op in found}


def test_what_only_a_concatenation_reads_has_its_range(graph, own):
    """The pooled values at the end of the backbone, and the first half of each block."""
    made = join(graph, own)
    pooling = [op for op in graph.operations if op.kind == "MAX_POOL_2D"]
    (end,) = {r.outputs[0] for op in pooling for r in graph.consumers[op.outputs[0]] if r.kind == "CONCATENATION"}
    assert {made[op.outputs[0]] for op in pooling} == {made[end]}
    assert own[end] not in {own[op.outputs[0]] for op in pooling}
    alone = [(op, t) for op, found in concatenated(graph) for t in found if readers(graph, t) == {"CONCATENATION"}]
    assert len(alone) > 5
    assert all(made[t] == made[op.outputs[0]] for op, t in alone)


def test_what_others_read_too_keeps_its_own(graph, own):
    made = join(graph, own)
    shared = [t for _, found in concatenated(graph) for t in found if {"CONV_2D", "ADD"} & readers(graph, t)]
    assert len(shared) > 5
    assert all(made[t] == own[t] for t in shared)


def test_a_concatenation_holds_no_more_than_it_was_to_nor_than_its_inputs(graph, own):
    """Ranges of boxes and keypoints leave out what no detection holds: the inputs' ranges must not bring it back."""
    (op, found), *_ = concatenated(graph)
    end = op.outputs[0]
    low, high = own[end]
    assert join(graph, {**own, end: (low / 2, high / 2)})[end] == (low / 2, high / 2)
    narrow = {t: (own[t][0] / 2, own[t][1] / 2) for t in found}
    union = (min(low for low, _ in narrow.values()), max(high for _, high in narrow.values()))
    assert join(graph, {**own, **narrow})[end] == union


def test_ranges_before_silu_stay(graph, own):
    made = join(graph, own)
    before_silu = [t for t in own if graph.silu(t) is not None]
    assert before_silu
    assert all(made[t] == own[t] for t in before_silu)


def test_integer_files_then_round_less_anew(detector, graph, statistics, monkeypatch):
    def requantisations():
        calibrated = pipeline.Calibrated(detector, graph, statistics, frozenset())
        made = Graph(calibrated.quantise("float", "channel", "int8"))
        return sum(op.kind == "QUANTIZE" for op in made.operations)

    joined = requantisations()
    monkeypatch.setattr(pipeline, "join", lambda graph, ranges, in_float: ranges)
    assert joined <= requantisations() - 8


def test_inputs_of_concatenations_in_float_keep_their_ranges(graph, own):
    inside = {op.index for op in graph.head()}
    made = join(graph, own, inside)
    ends = [
        t for op, found in concatenated(graph) if op.index in inside for t in found if graph.is_layer(graph.producer[t])
    ]
    assert len(ends) == 6
    assert all(made[t] == own[t] for t in ends)
    assert any(join(graph, own)[t] != own[t] for t in ends)
