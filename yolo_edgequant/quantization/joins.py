"""One scale for what a concatenation joins, so that its inputs need no requantisation.

A concatenation copies 8-bit values, so its inputs must have its output's scale; where their own differs, a file has an
operation that rounds them anew. An input that nothing else reads can have the common range from the start: it is
rounded once instead of twice, and the operation is spared. What others read, too, keeps its finer steps.
"""

from __future__ import annotations

from collections.abc import Container

from .graph import Graph
from .ranges import Ranges

#: Operators whose output has the input's scale.
_PASS = {"SLICE", "MAX_POOL_2D", "RESIZE_NEAREST_NEIGHBOR", "RESHAPE", "TRANSPOSE", "PAD"}


def join(graph: Graph, ranges: Ranges, in_float: Container[int] = ()) -> Ranges:
    """Give tensors that are only concatenated the range of the whole.

    Args:
        graph: the float graph.
        ranges: per tensor index, (low, high) in the tensor's units.
        in_float: positions of operations that are not quantised, whose inputs may have any scale.

    Returns:
        The ranges, with those of concatenations, of what only they read and of what passes these on replaced.
    """
    made = dict(ranges)

    def spread(tensor: int, low: float, high: float) -> None:
        made[tensor] = (low, high)
        op = graph.producer.get(tensor)
        if op is not None and op.kind == "CONCATENATION" and op.index not in in_float:
            for source in {_source(graph, t) for t in op.inputs}:
                if _readers(graph, source) == {op.index}:
                    spread(source, low, high)

    for op in graph.operations:
        if op.kind != "CONCATENATION" or op.index in in_float:
            continue
        sources = {_source(graph, tensor) for tensor in op.inputs}
        if all(source in made for source in sources):  # else one is a constant
            lows, highs = zip(made[op.outputs[0]], *(made[source] for source in sources), strict=True)
            # no wider than what the output is to hold, nor than what its inputs do
            spread(op.outputs[0], max(lows[0], min(lows[1:])), min(highs[0], max(highs[1:])))
    for op in graph.operations:
        if op.kind in _PASS and op.inputs[0] in made and op.outputs[0] in made:
            made[op.outputs[0]] = made[op.inputs[0]]
    return made


def _source(graph: Graph, tensor: int) -> int:
    """The tensor from which one has its scale."""
    while tensor in graph.producer and graph.producer[tensor].kind in _PASS:
        tensor = graph.producer[tensor].inputs[0]
    return tensor


def _readers(graph: Graph, tensor: int) -> set[int]:
    """Positions of the operations that read a tensor, directly or where it is passed on; -1 for the graph's end."""
    found = {-1} if tensor in graph.outputs else set()
    for op in graph.consumers[tensor]:
        found |= _readers(graph, op.outputs[0]) if op.kind in _PASS else {op.index}
    return found
