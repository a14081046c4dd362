import pytest

from yolo_edgequant.quantization import sensitivity
from yolo_edgequant.pipeline.sensitivity import Cost, Trial


def test_layers_are_convolutions_with_the_silu_behind_them(graph):
    found = sensitivity.layers(graph).values()
    assert sum(len(operations) for operations in found) == len({op.index for operations in found for op in operations})
    kinds = [[op.kind for op in operations] for operations in found]
    assert ["CONV_2D", "LOGISTIC", "MUL"] in kinds
    assert ["CONV_2D"] in kinds, "the last ones have no SiLU"
    assert {op.index for op in graph.operations if graph.is_layer(op)} == {operations[0].index for operations in found}


def test_the_costliest_layer_comes_first():
    noise = {"a": 0.1, "b": 0.3, "c": 0.2}
    assert sensitivity.rank(noise, noise.get) == [Cost("b", 0.3), Cost("c", 0.2), Cost("a", 0.1)]


@pytest.mark.parametrize("needed", [0, 1, 2, 5, 11, 20])
def test_the_fewest_layers_that_reach_the_retention(needed):
    measured = []

    def measure(count):
        measured.append(count)
        return Trial(count, 0.99 if count >= needed else 0.9, 1.0)

    trials = sensitivity.fewest(20, measure, 0.985)
    assert trials[-1].in_float == needed
    assert len(measured) == len(set(measured)) == len(trials) <= 10


def test_what_all_layers_cannot_reach_keeps_none_in_float():
    trials = sensitivity.fewest(6, lambda count: Trial(count, 0.9 + 0.01 * (count == 6), 1.0), 0.99)
    assert [trial.in_float for trial in trials] == [6, 0]
