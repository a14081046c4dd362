import pytest

from yolo_edgequant.errors import RecipeError
from yolo_edgequant.tflite import positions


def test_the_last_layers_of_scores_and_of_boxes(graph):
    """The embedded detector has three levels, four classes, and boxes of four sides in some bins."""
    scores, boxes = positions.last_layers(graph)
    assert [op.kind for op in (*scores, *boxes)] == ["CONV_2D"] * 6
    assert {graph.shape(op.outputs[0])[-1] for op in scores} == {4}
    assert {graph.shape(op.outputs[0])[-1] % 4 for op in boxes} == {0}
    assert not {op.index for op in scores} & {op.index for op in boxes}
    assert all(graph.silu(op.outputs[0]) is None for op in (*scores, *boxes))


def test_a_graph_without_boxes_is_refused(small):
    with pytest.raises(RecipeError, match=r"^1 last convolutions of scores and 0 of boxes were found"):
        positions.last_layers(small)


def test_the_concatenations_before_box_decoding(graph):
    joins = positions.joins(graph)
    decoding = {op.index for op in graph.decoding()}
    every = [op for op in graph.operations if op.kind == "CONCATENATION"]
    assert 0 < len(joins) < len(every)
    assert {op.index for op in every} - {op.index for op in joins} <= decoding


def test_the_three_roundings_of_each_silu(graph):
    places = positions.silu_tensors(graph)
    sigmoids = [op for op in graph.operations if op.kind == "LOGISTIC"]
    assert {len(tensors) for tensors in places.values()} == {len(sigmoids) - 1}, "all but that of the scores"
    for before, gate, product in zip(*places.values(), strict=True):
        assert graph.producer[before].kind == "CONV_2D"
        assert (graph.producer[gate].kind, graph.producer[product].kind) == ("LOGISTIC", "MUL")
        assert set(graph.producer[product].inputs) == {before, gate}


def test_a_graph_without_silu(monkeypatch, graph):
    monkeypatch.setattr(type(graph), "silu", lambda self, tensor: None)
    assert positions.silu_tensors(graph) == {}
