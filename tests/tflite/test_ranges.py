import numpy as np
import pytest

from yolo_edgequant.errors import RecipeError
from yolo_edgequant.quantization import ranges
from yolo_edgequant.tflite.calibration import Histogram, Statistics, collect


@pytest.fixture(scope="module")
def statistics(detector, images):
    return collect(detector, images)


def of(values):
    made = Statistics(histogram=Histogram())
    made.update(np.asarray(values, np.float32))
    return made


def silu(x):
    return x / (1 + np.exp(-x))


@pytest.mark.parametrize("name", ranges.ESTIMATORS)
def test_every_estimator_gives_each_activation_a_range_with_zero_inside_the_extremes(name, graph, statistics):
    chosen = ranges.estimate(name, graph, statistics)
    assert set(chosen) == set(statistics)
    silus = {graph.silu(t) for t in statistics}
    for tensor, (low, high) in chosen.items():
        assert low <= 0 <= high
        assert high > low
        if tensor not in silus:
            assert low >= min(statistics[tensor].minimum, 0) - 1e-6
            assert high <= max(statistics[tensor].maximum, 0) + 1e-6


def test_minmax_is_the_extremes(graph, statistics):
    chosen = ranges.estimate("minmax", graph, statistics)
    tensor = graph.outputs[0]
    assert chosen[tensor] == (min(statistics[tensor].minimum, 0), statistics[tensor].maximum)


def test_percentile_leaves_the_outlier_out():
    made = of([*np.linspace(-1, 1, 99_999), 50])
    (low, high), *_ = ranges.percentile(None, {0: made}).values()
    assert -1.02 < low < -0.98
    assert 0.98 < high < 1.05


def test_mse_beats_minmax_on_the_values_themselves():
    values = np.random.default_rng(0).laplace(0, 1, 100_000).astype(np.float32)
    (low, high), *_ = ranges.mse(None, {0: of(values)}).values()

    def error(low, high):
        scale = (high - low) / 255
        return np.mean((np.clip(np.round((values - low) / scale), 0, 255) * scale + low - values) ** 2)

    assert error(low, high) < 0.9 * error(values.min(), values.max())


def test_activation_gives_up_pre_activations_that_silu_sends_to_zero(graph):
    tensor = next(t for t in graph.activations() if graph.silu(t) is not None)
    random = np.random.default_rng(0)
    values = random.normal(-6, 5, 100_000).astype(np.float32)
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
    assert ranges.histogram_tensors("minmax", graph) == set()
    assert ranges.histogram_tensors("mse", graph) == set(graph.activations())
    assert 57 < len(ranges.histogram_tensors("activation", graph)) < 80


def test_trained_ranges_are_passed_on_and_sigmoids_have_their_own(graph):
    computing = [
        op for op in graph.operations if op.kind in {"CONV_2D", "MUL", "ADD", "SUB", "CONCATENATION", "MAX_POOL_2D"}
    ]
    trained = {op.outputs[0]: (-1.0, 2.0) for op in computing if op.kind not in {"MAX_POOL_2D", "CONCATENATION"}}
    head = {op.index for op in graph.head()}
    made = ranges.completed(graph, trained, head)
    assert made[graph.inputs[0]] == (0.0, 1.0)
    pools = [op for op in computing if op.kind == "MAX_POOL_2D"]
    assert pools
    assert all(made[op.outputs[0]] == (-1.0, 2.0) for op in pools)
    gates = [op.outputs[0] for op in graph.operations if op.kind == "LOGISTIC" and op.index not in head]
    assert {made[tensor] for tensor in gates} == {(0.0, 255 / 256)}
    first = computing[0]
    del trained[first.outputs[0]]
    with pytest.raises(RecipeError, match=r"\(CONV_2D\) has no trained range"):
        ranges.completed(graph, trained, head)
