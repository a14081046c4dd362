"""From statistics to ranges: which interval of each activation the 8 bits cover.

Both estimators read the same :class:`~.calibration.Statistics`; neither runs the model.

``minmax``
    The extremes that were seen. Nothing is clipped.
``activation``
    The interval with the least squared error *after* what reads the tensor: SiLU as the 8-bit files compute it (an
    8-bit sigmoid, then a multiplication), or a sigmoid whose scores below one in two thousand count as nothing. A
    pre-activation of -20 and one of -8 are the same after SiLU, so min-max ranges spend bits on telling them apart.
    Tensors that nothing of the kind reads keep their extremes.
"""

from __future__ import annotations

from collections.abc import Callable, Container

import numpy as np

from ..decoding.in_numpy import sigmoid
from ..errors import RecipeError
from ..int8 import SCORE_FLOOR, SIGMOID_RANGE, round_to_grid
from ..options import RangeEstimator
from .calibration import Statistics
from .graph import Graph, Operation
from .operators import CARRY, FIXED_RANGE

#: Tensor index to (low, high), in the tensor's own units.
Ranges = dict[int, tuple[float, float]]

_LOW_STEPS = np.linspace(0.02, 1.0, 50)
_HIGH_STEPS = np.linspace(0.3, 1.0, 36)


def estimate(
    estimator: RangeEstimator,
    graph: Graph,
    statistics: dict[int, Statistics],
    logits: frozenset[int] = frozenset(),
) -> Ranges:
    """Choose a range for every activation.

    Args:
        estimator: ``activation`` or ``minmax``.
        graph: the float graph.
        statistics: per tensor index, from :func:`.calibration.collect`.
        logits: outputs of the graph of which the host will take the sigmoid.

    Returns:
        A range for each tensor of `statistics`; every range contains 0, as TFLite's kernels require of padding.
    """
    ranges = _ESTIMATORS[estimator](graph, statistics, logits)
    return {tensor: (min(low, 0.0), max(high, 0.0)) for tensor, (low, high) in ranges.items()}


def propagate(graph: Graph, trained: Ranges, in_float: Container[int] = ()) -> Ranges:
    """Ranges from training, passed on to the tensors that only carry the same values on.

    Args:
        graph: the float graph.
        trained: per tensor index, (low, high); those of what computes.
        in_float: positions of operations that are not quantized.

    Raises:
        RecipeError: a tensor that is computed in 8 bits has no range.
    """
    ranges = dict(trained) | dict.fromkeys(graph.inputs, (0.0, 1.0))
    for op in graph.operations:
        for tensor in op.outputs:
            if tensor in ranges or op.index in in_float:
                continue
            if op.kind in FIXED_RANGE:
                ranges[tensor] = SIGMOID_RANGE
                continue
            sources = [ranges[source] for source in op.inputs if source in ranges]
            if op.kind not in CARRY or not sources:
                raise RecipeError(
                    f"tensor '{graph.name(tensor)}' ({op.kind}) has no trained range: the model was trained for files "
                    "that round at other points, or box decoding is to be in integers: use head='float' or 'raw'"
                )
            lows, highs = zip(*sources, strict=True)
            ranges[tensor] = (min(lows), max(highs))
    return ranges


def decoding_operations(graph: Graph) -> list[Operation]:
    """The operations of box decoding whose results have ranges of their own, in execution order."""
    return [op for op in graph.decoding() if op.kind not in CARRY | FIXED_RANGE]


def histogram_tensors(estimator: RangeEstimator, graph: Graph, logits: frozenset[int] = frozenset()) -> set[int]:
    """The tensors of which an estimator needs a histogram."""
    if estimator == RangeEstimator.MINMAX:
        return set()
    return {t for t in graph.activations() if graph.silu(t) is not None or graph.feeds_sigmoid(t, logits)}


def minmax(graph: Graph, statistics: dict[int, Statistics], logits: frozenset[int] = frozenset()) -> Ranges:
    """The extremes of each activation."""
    return {tensor: (s.minimum, s.maximum) for tensor, s in statistics.items()}


def activation(graph: Graph, statistics: dict[int, Statistics], logits: frozenset[int] = frozenset()) -> Ranges:
    """The range with the least squared error after the SiLU or sigmoid that reads the tensor; else the extremes."""
    ranges = minmax(graph, statistics)
    for tensor, s in statistics.items():
        product = graph.silu(tensor)
        if product is not None:
            low, high = _search(s, _silu_error)
            ranges[tensor] = (low, high)
            ranges[product] = _silu_range(low, high)
        elif graph.feeds_sigmoid(tensor, logits):
            low, high = _search(s, _score_error)
            ranges[tensor] = (low, s.maximum)  # the highest scores are few and matter most: never clip them
    return ranges


_ESTIMATORS: dict[str, Callable[[Graph, dict[int, Statistics], frozenset[int]], Ranges]] = {
    RangeEstimator.MINMAX: minmax,
    RangeEstimator.ACTIVATION: activation,
}


def _search(s: Statistics, error: Callable[[np.ndarray, float, float], np.ndarray]) -> tuple[float, float]:
    """The (low, high) within the extremes, 0 included, with the least mean square of ``error(values, low, high)``.

    Coordinate descent over relative steps: first the upper end, then the lower, until neither moves.
    """
    values, counts = s.histogram.occupied()
    weights = counts / counts.sum()
    least, greatest = min(s.minimum, 0.0), max(s.maximum, 0.0)

    def cost(low: float, high: float) -> float:
        return float(weights @ np.square(error(values, low, high))) if high > low else np.inf

    low, high = least, greatest
    for _ in range(4):
        before = (low, high)
        high = min((greatest * step for step in _HIGH_STEPS), key=lambda h: cost(low, h))
        low = min((least * step for step in _LOW_STEPS), key=lambda v: cost(v, high))
        if (low, high) == before:
            break
    return low, high


def _silu_range(low: float, high: float) -> tuple[float, float]:
    """The values that SiLU takes on [low, high]; its minimum, -0.2785, lies at -1.2785."""
    at = np.array([low, min(max(-1.2785, low), 0.0), high])
    values = at * sigmoid(at)
    return float(values.min()), float(values.max())


def _silu_error(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Error of SiLU computed as the integer kernels do: 8-bit input, sigmoid in steps of 1/256, 8-bit product."""
    rounded = round_to_grid(values, low, high)
    gate = np.minimum(np.round(sigmoid(rounded) * 256), 255) / 256
    return round_to_grid(rounded * gate, *_silu_range(low, high)) - values * sigmoid(values)


def _score_error(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Error of the sigmoid of quantized values, scores below the floor counting as the floor."""
    return np.maximum(sigmoid(round_to_grid(values, low, high)), SCORE_FLOOR) - np.maximum(sigmoid(values), SCORE_FLOOR)
