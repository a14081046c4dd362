"""The roundings of an INT8 file one by one, in its float graph: those of the weights, and those of activations.

Weights are taken from the INT8 file as it rounded them. An activation is rounded to the file's grid by a QUANTIZE and a
DEQUANTIZE behind the float operation that computes it. With both, the float graph computes what the file does but for
the order of sums and for what kernels approximate; and one tensor can be left out, as no recipe of the quantizer can,
which chooses by operation.
"""

from __future__ import annotations

import copy
from collections.abc import Collection

from ai_edge_litert import schema_py_generated as schema

from ..errors import RecipeError
from . import packing
from .graph import Graph, Operation
from .weights import WeightEditor

_CONVERT = frozenset({"QUANTIZE", "DEQUANTIZE"})


def rounded_weights(graph: Graph, quantized: Graph) -> Graph:
    """A float graph with the weights and biases of its INT8 file, activations as they are.

    Args:
        graph: float.
        quantized: the file of it.

    Raises:
        RecipeError: the file is of another graph.
    """
    editor, twins = WeightEditor(graph), _twins(graph, quantized)
    for op in graph.operations:
        for position, tensor in enumerate(op.inputs):
            if graph.constant(tensor) is None:
                continue
            values = quantized.dequantized(twins[op.index].inputs[position])
            if values is not None:
                editor.replace(op, position, values)
    return Graph(editor.content())


def rounded_activations(graph: Graph, quantized: Graph, exact: Collection[int] = ()) -> Graph:
    """A float graph whose activations are rounded wherever its INT8 file rounds them.

    Args:
        graph: float, with whatever weights.
        quantized: the file of it.
        exact: tensors of the graph that are not rounded, neither where they are computed nor where they are read.

    Raises:
        RecipeError: the file is of another graph.
    """
    return Graph(_Rounding(graph, quantized, exact).content())


def _twins(graph: Graph, quantized: Graph) -> dict[int, Operation]:
    """The operation of the file for each of the graph's, by position: the one that computes a tensor of that name."""
    named = {quantized.name(op.outputs[0]): op for op in quantized.operations}
    twins = {op.index: named.get(graph.name(op.outputs[0])) for op in graph.operations}
    for op in graph.operations:
        twin = twins[op.index]
        if twin is None or (twin.kind, len(twin.inputs)) != (op.kind, len(op.inputs)):
            raise RecipeError(f"the INT8 file has no {op.kind} that computes {graph.name(op.outputs[0])!r}")
    return twins


class _Rounding:
    """A float graph on its way to one that rounds: the operations so far, and where rounded tensors are."""

    def __init__(self, graph: Graph, quantized: Graph, exact: Collection[int]) -> None:
        self._graph, self._quantized, self._exact = graph, quantized, exact
        self._model = packing.unpack(graph.content)
        self._subgraph = self._model.subgraphs[0]
        self._rounded: dict[int, int] = {}  # a tensor of the file: the same in this graph
        self._codes = {kind: self._code(kind) for kind in ("QUANTIZE", "DEQUANTIZE")}
        self._operators: list[schema.OperatorT] = []

    def content(self) -> bytes:
        """The file."""
        graph, twins = self._graph, _twins(self._graph, self._quantized)
        computed = {*graph.inputs, *_computed(graph)}
        for op in graph.operations:
            operator = self._subgraph.operators[op.index]
            places = [place for place, tensor in enumerate(operator.inputs) if tensor >= 0]
            for place, tensor, read in zip(places, op.inputs, twins[op.index].inputs, strict=True):
                if tensor in computed:
                    operator.inputs[place] = self._read(tensor, read)
            self._operators.append(operator)
        before = list(self._subgraph.outputs)
        outputs = [self._read(a, b) for a, b in zip(before, self._quantized.outputs, strict=True)]
        renamed = dict(zip(before, outputs, strict=True))
        self._subgraph.outputs, self._subgraph.operators = outputs, self._operators
        for signature in self._model.signatureDefs or []:
            for entry in signature.outputs:
                entry.tensorIndex = renamed.get(entry.tensorIndex, entry.tensorIndex)
        return packing.pack(self._model)

    def _read(self, tensor: int, read: int) -> int:
        """Where a tensor is as the file's operation reads it, `read` there: rounded once, or once more for its reader.

        A file rounds anew by a QUANTIZE between the operation that computes and the one that reads.
        """
        if tensor in self._exact:
            return tensor
        if read not in self._rounded:
            producer = self._quantized.producer.get(read)
            if producer is not None and producer.kind in _CONVERT:
                source = self._read(tensor, producer.inputs[0])
            else:
                source = tensor
            grid = self._quantized.grid(read)
            self._rounded[read] = source if grid is None else self._append(source, grid)
        return self._rounded[read]

    def _append(self, source: int, grid: schema.QuantizationParametersT) -> int:
        """Round a tensor to a grid; the tensor that comes out."""
        integer, back = (copy.copy(self._subgraph.tensors[source]) for _ in range(2))
        integer.type, integer.quantization = schema.TensorType.INT8, grid
        for kind, tensor in (("QUANTIZE", integer), ("DEQUANTIZE", back)):
            index = len(self._subgraph.tensors)
            tensor.name = f"{kind.lower()}_{index}".encode()
            self._subgraph.tensors.append(tensor)
            operator = schema.OperatorT()
            operator.opcodeIndex, operator.inputs, operator.outputs = self._codes[kind], [source], [index]
            self._operators.append(operator)
            source = index
        return source

    def _code(self, kind: str) -> int:
        """The position of a new operator code."""
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, kind)
        code.version = 2 if kind == "DEQUANTIZE" else 1
        self._model.operatorCodes.append(code)
        return len(self._model.operatorCodes) - 1


def _computed(graph: Graph) -> list[int]:
    return [tensor for op in graph.operations for tensor in op.outputs]
