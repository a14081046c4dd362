import pytest

from yolo_edgequant.pipeline import sensitivity
from yolo_edgequant.pipeline.sensitivity import Cost, Trial


def test_the_costliest_layer_comes_first():
    noise = {"a": 0.1, "b": 0.3, "c": 0.2}
    assert sensitivity.rank(noise, noise.get) == [Cost("b", 0.3), Cost("c", 0.2), Cost("a", 0.1)]


@pytest.mark.parametrize("needed", [0, 1, 2, 5, 11, 20])
def test_the_fewest_layers_that_reach_the_retention(needed):
    measured = []

    def measure(count):
        measured.append(count)
        return Trial(count, 0.99 if count >= needed else 0.9, 1.0)

    trials = sensitivity.search_fewest(20, measure, 0.985)
    assert trials[-1].in_float == needed
    assert len(measured) == len(set(measured)) == len(trials) <= 10


def test_what_all_layers_cannot_reach_keeps_none_in_float():
    trials = sensitivity.search_fewest(6, lambda count: Trial(count, 0.9 + 0.01 * (count == 6), 1.0), 0.99)
    assert [trial.in_float for trial in trials] == [6, 0]
