"""Places of a detector's graph where it may be worth more than elsewhere to stay in float, found by topology."""

from __future__ import annotations

from collections.abc import Container

from ..errors import RecipeError
from .graph import Graph, Operation
from .operators import JOIN


def last_layers(graph: Graph, logits: Container[int] = ()) -> tuple[list[Operation], list[Operation]]:
    """The layers whose outputs box decoding reads, or the host: those of scores, and those of boxes and all else.

    Args:
        graph: float.
        logits: outputs of which the host will take the sigmoid.

    Raises:
        RecipeError: there are none of either.
    """
    inside = graph.decoding()
    ends = {tensor for op in inside for tensor in op.inputs} | set(graph.outputs)
    layers = [op for op in graph.operations if ends & set(op.outputs) and graph.is_layer(op)]
    scores = [op for op in layers if graph.feeds_sigmoid(op.outputs[0], frozenset(t for t in ends if t in logits))]
    others = [op for op in layers if op not in scores]
    if not scores or not others:
        raise RecipeError(
            f"{len(scores)} last convolutions of scores and {len(others)} of boxes were found; sensitivity is for "
            "models that have both"
        )
    return scores, others


def joins(graph: Graph) -> list[Operation]:
    """The concatenations before box decoding."""
    inside = {op.index for op in graph.decoding()}
    return [op for op in graph.operations if op.kind in JOIN and op.index not in inside]


def silu_tensors(graph: Graph) -> dict[str, list[int]]:
    """What SiLU reads and computes: the tensors of each of its three roundings; empty without SiLU."""
    places: dict[str, list[int]] = {"input": [], "sigmoid": [], "product": []}
    for op in graph.operations:
        product = graph.silu(op.outputs[0])
        if product is not None:
            gate = next(reader for reader in graph.consumers[op.outputs[0]] if reader.kind == "LOGISTIC")
            places["input"].append(op.outputs[0])
            places["sigmoid"].append(gate.outputs[0])
            places["product"].append(product)
    return places if places["input"] else {}
