"""A float graph in parts that run one after the other, each a model of its own.

An interpreter that keeps the value of every tensor has memory for all of them at once, 271 MB for YOLOv8n at 640
pixels. Of parts, only those of one need to be there, and what later parts read.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from . import packing
from .graph import Graph


@dataclass(frozen=True)
class Part:
    """Some operations of a graph that follow each other.

    Attributes:
        content: a ``.tflite`` file of them; tensors keep their indices.
        reads: tensors that come from earlier parts, or are the graph's input; the inputs of the file.
        computes: what they write and is asked for or handed on; the outputs of the file.
        hands_on: what later parts read, of this part and of earlier ones.
    """

    content: bytes
    reads: tuple[int, ...]
    computes: tuple[int, ...]
    hands_on: tuple[int, ...]


def split(graph: Graph, share: float, together: Collection[int] = (), unasked: Collection[int] = ()) -> list[Part]:
    """Cut a graph where little is handed on.

    Args:
        graph: float.
        share: of the memory of all tensors that a part may take, where the graph can be cut so.
        together: tensors that the last part is to compute, however much that takes.
        unasked: tensors that nobody wants to look at.

    Returns:
        The parts, in execution order.
    """
    model = packing.unpack(graph.content)
    places = [*_cuts(graph, share, together), len(graph.operations)]
    return [_part(graph, model, first, end, unasked) for first, end in pairwise(places)]


def _cuts(graph: Graph, share: float, together: Collection[int]) -> list[int]:
    """Positions of the first operation of each part: 0, and where least is handed on among the later half of a part."""
    written = [0, *accumulate(sum(_size(graph, tensor) for tensor in op.outputs) for op in graph.operations)]
    latest = min((graph.producer[tensor].index for tensor in together), default=len(graph.operations) - 1)
    limit = share * written[-1]
    cuts = [0]
    while written[-1] - written[cuts[-1]] > limit:
        before = written[cuts[-1]]
        possible = [place for place in range(cuts[-1] + 1, latest + 1) if written[place] - before > limit / 2]
        within = [place for place in possible if written[place] - before <= limit] or possible[:1]
        if not within:
            break
        cuts.append(min(within, key=lambda place: sum(_size(graph, tensor) for tensor in _handed_on(graph, place))))
    return cuts


def _part(graph: Graph, model: schema.ModelT, first: int, end: int, unasked: Collection[int]) -> Part:
    operations = graph.operations[first:end]
    hands_on = tuple(_handed_on(graph, end))
    computes = tuple(t for op in operations for t in op.outputs if t not in unasked or t in hands_on)
    reads = tuple(tensor for tensor in _handed_on(graph, first) if _is_read(graph, tensor, first, end))
    part, subgraph = copy.copy(model), copy.copy(model.subgraphs[0])
    subgraph.operators = subgraph.operators[first:end]
    subgraph.inputs, subgraph.outputs = list(reads), list(computes)
    part.subgraphs, part.signatureDefs, part.metadata = [subgraph, *model.subgraphs[1:]], [], []
    used = {subgraph.tensors[tensor].buffer for op in operations for tensor in op.inputs}
    used |= {tensor.buffer for other in model.subgraphs[1:] for tensor in other.tensors}
    part.buffers = [buffer if index in used else schema.BufferT() for index, buffer in enumerate(model.buffers)]
    return Part(packing.pack(part), reads, computes, hands_on)


def _handed_on(graph: Graph, place: int) -> list[int]:
    """The tensors that are there before the operation at a place, and that it or a later one reads."""
    before = [*graph.inputs, *(tensor for op in graph.operations[:place] for tensor in op.outputs)]
    return [tensor for tensor in before if _is_read(graph, tensor, place, len(graph.operations))]


def _is_read(graph: Graph, tensor: int, first: int, end: int) -> bool:
    return any(first <= reader.index < end for reader in graph.consumers[tensor])


def _size(graph: Graph, tensor: int) -> int:
    """In values."""
    return int(np.prod(graph.shape(tensor)))
