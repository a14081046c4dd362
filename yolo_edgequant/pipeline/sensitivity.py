"""What each layer costs in 8 bits, measured one at a time, and which few are worth keeping in float."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """What a layer costs.

    Attributes:
        layer: its name.
        noise: of the model's outputs with this layer alone in 8 bits, as a share of their variance.
    """

    layer: str
    noise: float


@dataclass(frozen=True)
class Trial:
    """A file with the most sensitive layers in float.

    Attributes:
        in_float: how many of them.
        retention: share of the float model's mAP50-95.
        latency_ms: median of the interpreter alone, milliseconds.
    """

    in_float: int
    retention: float
    latency_ms: float


def rank(layers: Iterable[str], noise: Callable[[str], float]) -> list[Cost]:
    """Measure each layer, the costliest first.

    Args:
        layers: names.
        noise: of the outputs of a model with this layer alone in 8 bits, as a share of their variance.
    """
    return sorted((Cost(layer, noise(layer)) for layer in layers), key=lambda cost: -cost.noise)


def search_fewest(layers: int, measure: Callable[[int], Trial], least: float) -> list[Trial]:
    """Find how few of the costliest layers have to stay in float.

    Args:
        layers: how many there are.
        measure: makes and measures a file with that many layers in float.
        least: retention to reach, 0 to 1.

    Returns:
        All trials, the chosen one last. It reaches `least` with the fewest layers that doubling and bisection found. If
        all layers in float do not reach it, too much is lost elsewhere, and the chosen one has none in float.
    """
    trials = {0: measure(0)}
    if trials[0].retention < least:
        trials[layers] = measure(layers)
        if trials[layers].retention < least:
            return [trials[layers], trials[0]]
    low, high = 0, min(n for n, trial in trials.items() if trial.retention >= least)
    count = 1
    while count < high:
        trials[count] = measure(count)
        if trials[count].retention >= least:
            high = count
        else:
            low = count
        count *= 2
    while high - low > 1:
        middle = (low + high) // 2
        trials[middle] = measure(middle)
        low, high = (low, middle) if trials[middle].retention >= least else (middle, high)
    return [*(trial for n, trial in trials.items() if n != high), trials[high]]
