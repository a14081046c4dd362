"""What each layer costs in 8 bits, measured one at a time, and which few are worth keeping in float."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from .graph import Graph, Operation
from .recipe import Rule


@dataclass(frozen=True)
class Layer:
    """A layer with the SiLU behind it, if there is one.

    Attributes:
        name: of its output in the graph.
        operations: of the float graph.
    """

    name: str
    operations: tuple[Operation, ...]


@dataclass(frozen=True)
class Cost:
    """What a layer costs.

    Attributes:
        layer: the layer.
        noise: of the model's outputs with this layer alone in 8 bits, as a share of their variance.
    """

    layer: Layer
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


def layers(graph: Graph) -> list[Layer]:
    """The layers with trained weights, in execution order."""
    found = []
    for op in graph.operations:
        if not graph.is_layer(op):
            continue
        output, operations = op.outputs[0], [op]
        product = graph.silu(output)
        if product is not None:
            operations += graph.consumers[output]
            output = product
        found.append(Layer(graph.name(output), tuple(operations)))
    return found


def rank(graph: Graph, noise: Callable[[Rule], float], chosen: Iterable[Layer]) -> list[Cost]:
    """Quantise each layer alone and measure, the costliest first.

    Args:
        graph: float.
        noise: of the outputs of a file in which a rule's operations are in float, as a share of their variance.
        chosen: the layers.
    """
    costs = []
    for layer in chosen:
        own = {op.index for op in layer.operations}
        others = tuple(op for op in graph.operations if op.index not in own)
        costs.append(Cost(layer, noise(Rule("all other layers", "float", others))))
    return sorted(costs, key=lambda cost: -cost.noise)


def fewest(costs: Sequence[Cost], measure: Callable[[int], Trial], least: float) -> list[Trial]:
    """Find how few of the costliest layers have to stay in float.

    Args:
        costs: the costliest first.
        measure: makes and measures a file with that many layers in float.
        least: retention to reach, 0 to 1.

    Returns:
        All trials. The last one reaches `least` with the fewest layers that doubling and bisection found; if none does,
        it is the best one.
    """
    trials = {0: measure(0)}
    count = 1
    while max(trials.values(), key=lambda t: t.in_float).retention < least and max(trials) < len(costs):
        count = min(count, len(costs))
        trials[count] = measure(count)
        count *= 2
    reached = [n for n, trial in trials.items() if trial.retention >= least]
    if not reached:
        best = max(trials.values(), key=lambda trial: trial.retention)
        return [*(trial for trial in trials.values() if trial is not best), best]
    high = min(reached)
    low = max((n for n in trials if n < high), default=-1)
    while high - low > 1:
        middle = (low + high) // 2
        trials[middle] = measure(middle)
        low, high = (low, middle) if trials[middle].retention >= least else (middle, high)
    return [*(trial for n, trial in trials.items() if n != high), trials[high]]


def in_float(costs: Sequence[Cost], count: int) -> Rule | None:
    """The rule that keeps the `count` costliest layers in float; None for none."""
    kept = tuple(op for cost in costs[:count] for op in cost.layer.operations)
    return Rule(f"the {count} most sensitive layers", "float", kept) if kept else None
