import numpy as np
import pytest

from tests.graphs import Network
from yolo_edgequant.errors import RecipeError
from yolo_edgequant.histogram import Histogram
from yolo_edgequant.options import RangeEstimator
from yolo_edgequant.tflite import ranges
from yolo_edgequant.tflite.calibration import Statistics, collect
from yolo_edgequant.tflite.graph import Graph
from yolo_edgequant.tflite.operators import CARRY, FIXED_RANGE


@pytest.fixture(scope="module")
def statistics(graph, images):
    return collect(graph, images)


def of(values):
    statistics = Statistics(histogram=Histogram())
    statistics.update(np.asarray(values, np.float32))
    return statistics


def silu(x):
    return x / (1 + np.exp(-x))


@pytest.mark.parametrize("estimator", [RangeEstimator.ACTIVATION, RangeEstimator.MINMAX])
def test_each_activation_has_a_range_with_zero_and_within_the_extremes(estimator, graph, statistics):
    chosen = ranges.estimate(estimator, graph, statistics)
    assert set(chosen) == set(statistics)
    silus = {graph.silu(t) for t in statistics}
    for tensor, (low, high) in chosen.items():
        assert low <= 0 <= high
        assert high > low
        if tensor not in silus:
            assert low >= min(statistics[tensor].minimum, 0) - 1e-6
            assert high <= max(statistics[tensor].maximum, 0) + 1e-6


def test_minmax_is_the_extremes(graph, statistics):
    chosen = ranges.estimate(RangeEstimator.MINMAX, graph, statistics)
    tensor = graph.outputs[0]
    assert chosen[tensor] == (min(statistics[tensor].minimum, 0), statistics[tensor].maximum)


def test_activation_gives_up_pre_activations_that_silu_sends_to_zero(graph):
    tensor = next(t for t in graph.activations() if graph.silu(t) is not None)
    values = np.random.default_rng(0).normal(-6, 5, 100_000).astype(np.float32)
    chosen = ranges.activation(graph, {tensor: of(values)})
    low, high = chosen[tensor]
    assert values.min() < -20
    assert -8 < low < -2

    def error(low, high):
        scale = (high - low) / 255
        return np.mean((silu(np.clip(np.round((values - low) / scale), 0, 255) * scale + low) - silu(values)) ** 2)

    assert error(low, high) < 0.8 * error(values.min(), values.max())
    assert chosen[graph.silu(tensor)] == pytest.approx((-0.2785, silu(high)), abs=1e-3)


def test_activation_drops_hopeless_scores_and_never_clips_the_best(graph, statistics):
    scores = [t for t in statistics if graph.feeds_sigmoid(t)]
    assert len(scores) >= 3, "the class logits of each level"
    chosen = ranges.activation(graph, statistics)
    for tensor in scores:
        assert chosen[tensor][1] == statistics[tensor].maximum
        assert chosen[tensor][0] > -12
    assert min(statistics[t].minimum for t in scores) < -12


def test_histograms_are_asked_for_only_where_needed(graph):
    assert ranges.histogram_tensors(RangeEstimator.MINMAX, graph) == set()
    before_silu = {t for t in graph.activations() if graph.silu(t) is not None}
    wanted = ranges.histogram_tensors(RangeEstimator.ACTIVATION, graph)
    assert before_silu < wanted
    assert all(graph.feeds_sigmoid(tensor) for tensor in wanted - before_silu)
    logits = frozenset({graph.producer[graph.outputs[0]].inputs[0]})
    assert not logits & wanted


def test_trained_ranges_are_passed_on_and_sigmoids_have_their_own(graph):
    computing = [
        op for op in graph.operations if op.kind in {"CONV_2D", "MUL", "ADD", "SUB", "CONCATENATION", "MAX_POOL_2D"}
    ]
    decoding = {op.index for op in graph.decoding()}
    own = [op for op in computing if op.kind not in {"MAX_POOL_2D", "CONCATENATION"} and op.index not in decoding]
    trained = {op.outputs[0]: (-1.0, 2.0) for op in own}
    everywhere = ranges.propagate(graph, trained, decoding)
    assert everywhere[graph.inputs[0]] == (0.0, 1.0)
    pools = [op for op in computing if op.kind == "MAX_POOL_2D"]
    assert pools
    assert all(everywhere[op.outputs[0]] == (-1.0, 2.0) for op in pools)
    gates = [op.outputs[0] for op in graph.operations if op.kind == "LOGISTIC" and op.index not in decoding]
    assert {everywhere[tensor] for tensor in gates} == {(0.0, 255 / 256)}
    first = computing[0]
    del trained[first.outputs[0]]
    with pytest.raises(RecipeError, match=r"\(CONV_2D\) has no trained range"):
        ranges.propagate(graph, trained, decoding)


def test_a_concatenation_holds_the_trained_ranges_of_all_that_it_joins():
    network = Network(1, 8, 8, 3)
    one, other = (network.conv(network.input, np.ones((4, 3, 3, 3))) for _ in range(2))
    joined = network.add("CONCATENATION", (one, other), (1, 8, 8, 8), axis=3)
    graph = Graph(network.content(joined))
    assert ranges.propagate(graph, {one: (-3.0, 1.0), other: (-1.0, 4.0)})[joined] == (-3.0, 4.0)


def test_what_training_has_to_watch_of_box_decoding(graph):
    operations = ranges.decoding_operations(graph)
    assert {op.kind for op in operations} == {"CONV_2D", "MUL", "SUB", "ADD"}
    assert not {op.kind for op in operations} & (CARRY | FIXED_RANGE)
    assert len(operations) == 1 + 2 + 1 + 2
