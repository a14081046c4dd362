"""One scale for what a concatenation joins, so that its inputs need no requantization.

A concatenation copies 8-bit values, so its inputs must have its output's scale; where their own differs, a file has an
operation that rounds them anew. An input that nothing else reads can have the common range from the start: it is
rounded once instead of twice, and the operation is spared. What others read, too, keeps its finer steps.

Scores come out of a sigmoid with steps of 1/256, whatever their values. Where they are joined with boxes of nearly the
same range, shares of the image, the whole has these steps: a box that reaches beyond the image is cut off there, and
the scores are not rounded again.
"""

from __future__ import annotations

from collections.abc import Container

from ..int8 import SIGMOID_RANGE
from .graph import Graph
from .operators import FIXED_RANGE, JOIN, SAME_SCALE
from .ranges import Ranges

_BEYOND = 0.05  # share of the image that a box may be cut off outside of it


def share_scales(graph: Graph, ranges: Ranges, in_float: Container[int] = ()) -> Ranges:
    """Give tensors that are only concatenated the range of the whole.

    Args:
        graph: the float graph.
        ranges: per tensor index, (low, high) in the tensor's units.
        in_float: positions of operations that are not quantized, whose inputs may have any scale.

    Returns:
        The ranges, with those of concatenations, of what only they read and of what passes these on replaced.
    """
    shared = dict(ranges)

    def spread(tensor: int, low: float, high: float) -> None:
        shared[tensor] = (low, high)
        op = graph.producer.get(tensor)
        if op is not None and op.kind in JOIN and op.index not in in_float:
            for source in {_source(graph, t) for t in op.inputs}:
                if _readers(graph, source) == {op.index}:
                    spread(source, low, high)

    for op in graph.operations:
        if op.kind not in JOIN or op.index in in_float:
            continue
        sources = {_source(graph, tensor) for tensor in op.inputs}
        if all(source in shared for source in sources):  # else one is a constant
            lows, highs = zip(shared[op.outputs[0]], *(shared[source] for source in sources), strict=True)
            # no wider than what the output is to hold, nor than what its inputs do
            low, high = max(lows[0], min(lows[1:])), min(highs[0], max(highs[1:]))
            if _joins_scores(graph, sources) and low >= -_BEYOND and high <= 1 + _BEYOND:
                low, high = SIGMOID_RANGE
            spread(op.outputs[0], low, high)
    for op in graph.operations:
        if op.kind in SAME_SCALE and graph.source(op) in shared:
            shared |= {tensor: shared[graph.source(op)] for tensor in op.outputs if tensor in shared}
    return shared


def _joins_scores(graph: Graph, sources: set[int]) -> bool:
    """True if one of these tensors has the range that kernels give to a sigmoid, or joins those that have it."""
    producers = [graph.producer[source] for source in sources if source in graph.producer]
    return any(
        op.kind in FIXED_RANGE or (op.kind in JOIN and _joins_scores(graph, {_source(graph, t) for t in op.inputs}))
        for op in producers
    )


def _source(graph: Graph, tensor: int) -> int:
    """The tensor from which one has its scale."""
    while tensor in graph.producer and graph.producer[tensor].kind in SAME_SCALE:
        tensor = graph.source(graph.producer[tensor])
    return tensor


def _readers(graph: Graph, tensor: int) -> set[int]:
    """Positions of the operations that read a tensor, directly or where it is passed on; -1 for the graph's end."""
    readers = {-1} if tensor in graph.outputs else set()
    for op in graph.consumers[tensor]:
        if op.kind in SAME_SCALE:
            readers = readers.union(*(_readers(graph, output) for output in op.outputs))
        else:
            readers.add(op.index)
    return readers
