import pytest

from yolo_edgequant.quantization import sensitivity
from yolo_edgequant.quantization.sensitivity import Cost, Layer, Trial


def test_layers_are_convolutions_with_the_silu_behind_them(graph):
    found = sensitivity.layers(graph)
    assert sum(len(layer.operations) for layer in found) == len({op.index for la in found for op in la.operations})
    kinds = [[op.kind for op in layer.operations] for layer in found]
    assert ["CONV_2D", "LOGISTIC", "MUL"] in kinds
    assert ["CONV_2D"] in kinds, "the last ones have no SiLU"
    assert {op.index for op in graph.operations if graph.is_layer(op)} == {la.operations[0].index for la in found}


def test_the_costliest_layer_comes_first_and_is_measured_alone(graph):
    chosen = sensitivity.layers(graph)[:5]
    noisy = chosen[3].operations[0].index

    def noise(rule):
        kept = {op.index for op in rule.operations}
        alone = [layer for layer in chosen if layer.operations[0].index not in kept]
        assert len(alone) == 1
        return 1.0 if noisy not in kept else 0.1

    ranked = sensitivity.rank(graph, noise, chosen)
    assert ranked[0] == Cost(chosen[3], 1.0)
    assert len(ranked) == 5
    rule = sensitivity.in_float(ranked, 1)
    assert rule.operations == chosen[3].operations
    assert sensitivity.in_float(ranked, 0) is None


@pytest.mark.parametrize("needed", [0, 1, 2, 5, 11, 20])
def test_the_fewest_layers_that_reach_the_retention(needed):
    costs = [Cost(Layer(str(i), ()), 1.0) for i in range(20)]
    measured = []

    def measure(count):
        measured.append(count)
        return Trial(count, 0.99 if count >= needed else 0.9, 1.0)

    trials = sensitivity.fewest(costs, measure, 0.985)
    assert trials[-1].in_float == needed
    assert len(measured) == len(set(measured)) == len(trials) <= 10


def test_what_cannot_be_reached_ends_with_the_best_trial():
    costs = [Cost(Layer(str(i), ()), 1.0) for i in range(6)]
    trials = sensitivity.fewest(costs, lambda count: Trial(count, 0.9 + 0.01 * (count == 4), 1.0), 0.99)
    assert trials[-1].in_float == 4
    assert {trial.in_float for trial in trials} == {0, 1, 2, 4, 6}
