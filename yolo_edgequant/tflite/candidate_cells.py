"""Cells of the detection grid that may become detections, so that ranges need not cover what the others hold.

A head is trained on cells with an object; in the rest, nearly all, boxes and above all keypoints may be anything. One
scale over all cells would spend its 8 bits on values that no threshold ever lets through. This holds for the outputs of
the branches that give boxes, keypoints, angles and mask coefficients, for what is computed from them, and for the
layers inside of these branches, there with as many neighbours as the convolutions behind them look at. The branches of
the scores are left out: all of their cells matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..contract import Output
from ..int8 import CANDIDATE_LOGIT
from .graph import Graph
from .operators import REORDER


@dataclass(frozen=True)
class CellAxis:
    """Where a tensor holds values of cells.

    Attributes:
        first: number of its first cell on the grid of all levels.
        axis: of the cells, None for a map (B, rows, columns, C).
        reach: how many cells around a candidate matter, too; maps only.
    """

    first: int
    axis: int | None = None
    reach: int = 0


@dataclass(frozen=True)
class CandidateCells:
    """The tensors that hold values of cells, by index.

    Attributes:
        scores: class logits; together all cells, in the levels' order.
        values: all else.
    """

    scores: dict[int, CellAxis]
    values: dict[int, CellAxis]

    def candidates(self, read: Callable[[int], np.ndarray]) -> np.ndarray:
        """(B, A) bool: the cells with a score over 0.01 in any class; `read` gives a tensor's value."""
        best = [_cells_second(read(tensor), place.axis).max(2) for tensor, place in self.scores.items()]
        return np.concatenate(best, 1) > CANDIDATE_LOGIT

    def values_of(self, tensor: int, values: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Those of a tensor's values that belong to candidates, (N, values of a cell)."""
        place = self.values[tensor]
        by_cell = _cells_second(values, place.axis)
        wanted = candidates[:, place.first : place.first + by_cell.shape[1]]
        if place.reach:
            wanted = _widened(wanted.reshape(values.shape[:3]), place.reach).reshape(wanted.shape)
        return by_cell[wanted]


def of_raw(graph: Graph, outputs: Sequence[Output]) -> CandidateCells:
    """The cells in a raw graph.

    Args:
        graph: float, NHWC inside, with outputs of shape (B, cells, C) or (B, rows, columns, C).
        outputs: the graph's, in order.
    """
    scores: dict[int, CellAxis] = {}
    parts: dict[int, CellAxis] = {}
    levels: dict[str, list[int]] = {}  # tensors by branch, the levels in order
    for output, tensor in sorted(zip(outputs, graph.outputs, strict=True), key=lambda pair: pair[0].stride or 0):
        if output.name == "prototypes":
            continue
        merged = output.stride is None
        levels.setdefault(output.name, []).extend(graph.producer[tensor].inputs if merged else [tensor])
        if merged and output.name != "scores":
            parts[tensor] = CellAxis(0, 1)  # a level without candidates may not widen the range of all
    for name, tensors in levels.items():
        first = 0
        for tensor in tensors:
            shape = graph.shape(tensor)
            is_map = len(shape) == 4
            (scores if name == "scores" else parts)[tensor] = CellAxis(first, None if is_map else 1)
            first += shape[1] * shape[2] if is_map else shape[1]
    return CandidateCells(scores, _with_branches(graph, scores, parts))


def of_decoded(graph: Graph, levels: Sequence[int], classes: int) -> CandidateCells | None:
    """The cells in a graph that ends in detections, found by how the levels are concatenated.

    Args:
        graph: float, NHWC inside.
        levels: number of cells of each level.
        classes: nc.

    Returns:
        None if the class logits of all levels, or their sigmoids, are nowhere concatenated.
    """
    decoding, total = graph.decoding(), sum(levels)
    scores: dict[int, CellAxis] = {}
    parts: dict[int, CellAxis] = {}
    for op in decoding:
        if op.kind != "CONCATENATION":
            continue
        joined = op.outputs[0]
        sizes = list(zip(*(graph.shape(t) for t in op.inputs), strict=True))  # of the inputs, axis by axis
        if sizes.count(tuple(levels)) != 1:
            continue
        axis, firsts = sizes.index(tuple(levels)), np.cumsum([0, *levels[:-1]]).tolist()
        if not scores and classes in graph.shape(joined)[1:]:  # the first: a pose's visibility comes later
            if graph.feeds_sigmoid(joined):
                scores[joined] = CellAxis(0, axis)
                continue
            logits = [_logits(graph, tensor) for tensor in op.inputs]
            if None not in logits:
                places = ((t, first, len(graph.shape(t))) for t, first in zip(logits, firsts, strict=True))
                scores = {t: CellAxis(first, None if rank == 4 else axis) for t, first, rank in places}
                continue
        parts |= {tensor: CellAxis(first, axis) for tensor, first in zip(op.inputs, firsts, strict=True)}
    if not scores:
        return None
    decoded = {}
    for tensor in (t for op in decoding for t in op.outputs):
        axes = [axis for axis, count in enumerate(graph.shape(tensor)) if count == total]
        if len(axes) == 1 and axes[0] > 0 and not graph.feeds_sigmoid(tensor):
            decoded[tensor] = CellAxis(0, axes[0])
    return CandidateCells(scores, _with_branches(graph, scores, parts) | decoded)


def _logits(graph: Graph, tensor: int) -> int | None:
    """The tensor of which one holds the sigmoid, perhaps in another shape; None if it holds something else."""
    op = graph.producer.get(tensor)
    while op is not None and op.kind in REORDER:
        op = graph.producer.get(op.inputs[0])
    return op.inputs[0] if op is not None and op.kind == "LOGISTIC" else None


def _with_branches(graph: Graph, scores: Mapping[int, CellAxis], parts: Mapping[int, CellAxis]) -> dict[int, CellAxis]:
    """The outputs of branches, and what the branches hold that no score depends on."""
    shared = {tensor for score in scores for tensor, _ in _upstream(graph, score, set())}
    values = dict(parts)
    for part, place in parts.items():
        whole = graph.shape(part)
        count = whole[1] * whole[2] if place.axis is None else whole[place.axis]
        for tensor, reach in _upstream(graph, part, shared):
            shape = graph.shape(tensor)
            if len(shape) == 4 and shape[1] * shape[2] == count and graph.producer[tensor].kind != "TRANSPOSE":
                known = values.get(tensor)
                values[tensor] = CellAxis(place.first, None, max(reach, known.reach if known else 0))
    return values


def _upstream(graph: Graph, tensor: int, end: set[int]) -> Iterator[tuple[int, int]]:
    """The computed tensors that one depends on up to `end`, each with the reach of the convolutions between them."""
    best: dict[int, int] = {}
    pending = [(tensor, 0)]
    while pending:
        current, reach = pending.pop()
        op = graph.producer.get(current)
        if op is None or current in end or best.get(current, -1) >= reach:
            continue
        best[current] = reach
        wider = reach + (0 if op.kernel is None else graph.shape(op.kernel)[1] // 2)
        pending += [(source, wider) for source in op.inputs]
    yield from best.items()


def _widened(wanted: np.ndarray, reach: int) -> np.ndarray:
    """(B, rows, columns) bool with all cells up to `reach` rows and columns away from those of `wanted`."""
    for axis in (1, 2):
        padded = np.pad(wanted, [(reach, reach) if k == axis else (0, 0) for k in range(3)])
        wanted = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis).any(-1)
    return wanted


def _cells_second(values: np.ndarray, axis: int | None) -> np.ndarray:
    """(B, cells, values of a cell), of a map or of a tensor with an axis of cells."""
    if axis is None:
        return values.reshape(values.shape[0], -1, values.shape[3])
    moved = np.moveaxis(values, axis, 1)
    return moved.reshape(*moved.shape[:2], -1)
