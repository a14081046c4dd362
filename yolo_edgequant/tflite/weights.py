"""Writing weights and biases of a ``.tflite`` model."""

from __future__ import annotations

import copy
from collections import Counter

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from . import packing
from .graph import Graph, Operation


class WeightEditor:
    """A copy of a float model whose layers can be given other weights.

    Args:
        graph: float; stays as it is.
    """

    def __init__(self, graph: Graph) -> None:
        self._model = packing.unpack(graph.content)
        self._subgraph = self._model.subgraphs[0]
        self._graph = graph
        self._uses = Counter(self._subgraph.tensors[t].buffer for op in graph.operations for t in op.inputs)

    def replace(self, op: Operation, position: int, values: np.ndarray) -> None:
        """Give an operation another constant.

        Args:
            op: of the graph.
            position: among its inputs.
            values: of the constant's shape, converted to float32.
        """
        index = op.inputs[position]
        tensor = self._subgraph.tensors[index]
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(values.astype(np.float32).tobytes(), np.uint8)
        if self._uses[tensor.buffer] == 1:
            self._model.buffers[tensor.buffer] = buffer
            return
        # several layers read one constant, zeros for example
        own = copy.copy(tensor)
        own.name, own.buffer = f"{self._graph.name(index)}_of_{op.index}".encode(), len(self._model.buffers)
        self._model.buffers.append(buffer)
        self._subgraph.operators[op.index].inputs[position] = len(self._subgraph.tensors)
        self._subgraph.tensors.append(own)

    def content(self) -> bytes:
        """The file; tensors keep their indices."""
        return packing.pack(self._model)
