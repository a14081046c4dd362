"""A ``.tflite`` graph to look at: which operator makes a tensor, which ones read it, where box decoding begins.

Names are no guide (each converter has its own), so everything here goes by topology and by the constants' values.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_quantizer.utils import tfl_flatbuffer_utils

from . import packing
from .operators import MOVE, WEIGHTS_INPUT


@dataclass(frozen=True)
class Operation:
    """One operator of the graph.

    Attributes:
        index: position in execution order.
        kind: TFLite's name, for example ``CONV_2D``; ``CUSTOM`` for operators that are not built in.
        inputs: tensor indices; absent optional inputs are left out.
        outputs: tensor indices.
    """

    index: int
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def kernel(self) -> int | None:
        """The tensor of the kernel, (C_out, rows, columns, C_in), of a convolution."""
        return self.inputs[1] if self.kind in {"CONV_2D", "DEPTHWISE_CONV_2D"} else None


class Graph:
    """The main subgraph of a ``.tflite`` model.

    Args:
        content: the file's bytes; anything appended behind the flatbuffer (Ultralytics' metadata) is ignored.

    Attributes:
        content: the same.
        operations: in execution order.
        inputs, outputs: tensor indices.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self._model = packing.unpack(content)
        self._subgraph = self._model.subgraphs[0]
        self.operations = [
            Operation(
                index,
                packing.KINDS[self._model.operatorCodes[op.opcodeIndex].builtinCode],
                tuple(int(i) for i in op.inputs if i >= 0),
                tuple(int(i) for i in op.outputs),
            )
            for index, op in enumerate(self._subgraph.operators)
        ]
        self.inputs: tuple[int, ...] = tuple(int(i) for i in self._subgraph.inputs)
        self.outputs: tuple[int, ...] = tuple(int(i) for i in self._subgraph.outputs)

    @cached_property
    def producer(self) -> dict[int, Operation]:
        """The operation that writes each tensor; constants and graph inputs have none."""
        return {tensor: op for op in self.operations for tensor in op.outputs}

    @cached_property
    def consumers(self) -> dict[int, list[Operation]]:
        """The operations that read each tensor, in execution order."""
        readers: dict[int, list[Operation]] = defaultdict(list)
        for op in self.operations:
            for tensor in op.inputs:
                readers[tensor].append(op)
        return readers

    def name(self, tensor: int) -> str:
        """The tensor's name in the file."""
        return tfl_flatbuffer_utils.get_tensor_name(self._subgraph.tensors[tensor])

    def shape(self, tensor: int) -> tuple[int, ...]:
        """The tensor's shape, as stored."""
        shape = self._subgraph.tensors[tensor].shape
        return () if shape is None else tuple(int(n) for n in shape)

    def dtype(self, tensor: int) -> str:
        """The tensor's element type by TFLite's name, for example ``FLOAT32`` or ``INT8``."""
        return _DTYPES[self._subgraph.tensors[tensor].type]

    def constant(self, tensor: int) -> np.ndarray | None:
        """The value of a float32 constant, or None for a tensor that is computed or has another type."""
        info = self._subgraph.tensors[tensor]
        data = self._model.buffers[info.buffer].data
        if tensor in self.producer or data is None or info.type != schema.TensorType.FLOAT32:
            return None
        return np.frombuffer(np.asarray(data).tobytes(), np.float32).reshape(self.shape(tensor))

    def grid(self, tensor: int) -> schema.QuantizationParametersT | None:
        """The scale and zero point of an int8 tensor that is computed; None for a tensor of another type."""
        info = self._subgraph.tensors[tensor]
        return info.quantization if info.type == schema.TensorType.INT8 else None

    def dequantized(self, tensor: int) -> np.ndarray | None:
        """The real values, float32, of a constant in integers with scales; None for any other tensor."""
        info = self._subgraph.tensors[tensor]
        data, grid, kind = self._model.buffers[info.buffer].data, info.quantization, _INTEGERS.get(info.type)
        if kind is None or data is None or grid is None or grid.scale is None or tensor in self.producer:
            return None
        stored = np.frombuffer(np.asarray(data).tobytes(), kind).reshape(self.shape(tensor)).astype(np.float64)
        along = [1] * stored.ndim
        if len(grid.scale) > 1:
            along[grid.quantizedDimension] = -1
        scale, zero = (np.asarray(v, np.float64).reshape(along) for v in (grid.scale, grid.zeroPoint))
        return ((stored - zero) * scale).astype(np.float32)

    def output_order(self) -> list[int]:
        """For each output, the position that the traced model gave it: the number in its name in the signature."""
        names = {entry.tensorIndex: entry.name for entry in self._model.signatureDefs[0].outputs}
        return [int(names[t].decode().rpartition("_")[2]) for t in self.outputs]

    def activations(self) -> list[int]:
        """Every float32 tensor that depends on the input: the graph's inputs, then operators' outputs in order."""
        computed = [t for op in self.operations for t in op.outputs]
        return [t for t in (*self.inputs, *computed) if self._subgraph.tensors[t].type == schema.TensorType.FLOAT32]

    def silu(self, tensor: int) -> int | None:
        """The output of ``x * sigmoid(x)`` if `tensor` is such an ``x`` and nothing else reads it, else None."""
        readers = self.consumers[tensor]
        if sorted(op.kind for op in readers) != ["LOGISTIC", "MUL"]:
            return None
        gate = next(op for op in readers if op.kind == "LOGISTIC")
        product = next(op for op in readers if op.kind == "MUL")
        return product.outputs[0] if set(product.inputs) == {tensor, gate.outputs[0]} else None

    def silu_gates(self) -> set[int]:
        """The sigmoids of all SiLUs, which nothing but the multiplication reads."""
        computed = (tensor for op in self.operations for tensor in op.outputs)
        return {
            reader.outputs[0]
            for tensor in computed
            if self.silu(tensor) is not None
            for reader in self.consumers[tensor]
            if reader.kind == "LOGISTIC" and len(self.consumers[reader.outputs[0]]) == 1
        }

    def feeds_sigmoid(self, tensor: int, logits: frozenset[int] = frozenset()) -> bool:
        """True if all that reads the tensor is, after mere moves, a sigmoid that is not part of a SiLU.

        Args:
            tensor: index.
            logits: outputs of the graph of which the host will take the sigmoid.
        """
        if tensor in self.outputs:
            return tensor in logits
        if self.silu(tensor) is not None:
            return False
        readers = self.consumers[tensor]
        return bool(readers) and all(
            op.kind == "LOGISTIC" or (op.kind in MOVE and all(self.feeds_sigmoid(t, logits) for t in op.outputs))
            for op in readers
        )

    def homogeneous(self, op: Operation) -> bool:
        """True if the activation that is part of an operation takes ``s x`` to ``s`` times what it takes ``x`` to."""
        options = self._subgraph.operators[op.index].builtinOptions
        fused = getattr(options, "fusedActivationFunction", schema.ActivationFunctionType.NONE)
        return fused in {schema.ActivationFunctionType.NONE, schema.ActivationFunctionType.RELU}

    def is_layer(self, op: Operation) -> bool:
        """True for a convolution or matrix product with trained weights.

        Convolutions that take distances from DFL's shares, or boxes from distances, are not: see :func:`_decodes`.
        """
        position = WEIGHTS_INPUT.get(op.kind)
        if position is None:
            return False
        weights = self.constant(op.inputs[position])
        if weights is None:
            return False
        return not _decodes(weights)

    def bias(self, op: Operation) -> int | None:
        """Where among a layer's inputs its bias is; None if it has none.

        Transposed convolutions count as having none: their output pixels do not all see the same weights.
        """
        has_bias = op.kind != "TRANSPOSE_CONV" and len(op.inputs) == 3 and self.is_layer(op)
        return 2 if has_bias and self.constant(op.inputs[2]) is not None else None

    def strides(self, op: Operation) -> tuple[tuple[int, int], tuple[int, int]]:
        """(rows, columns) of a layer's stride and of its dilation; 1 for what has none."""
        options = self._subgraph.operators[op.index].builtinOptions
        names = ("strideH", "strideW"), ("dilationHFactor", "dilationWFactor")
        return tuple(tuple(getattr(options, name, 1) for name in pair) for pair in names)

    def _ends_layer(self, op: Operation) -> bool:
        """True for a layer, and for the multiplication that closes the SiLU behind one."""
        if self.is_layer(op):
            return True
        return op.kind == "MUL" and any(
            self.silu(t) == op.outputs[0] and t in self.producer and self.is_layer(self.producer[t]) for t in op.inputs
        )

    def layers(self) -> dict[str, tuple[Operation, ...]]:
        """The layers with trained weights by the name of their output, in execution order, each with its SiLU."""
        named = {}
        for op in self.operations:
            if not self.is_layer(op):
                continue
            output, operations = op.outputs[0], [op]
            product = self.silu(output)
            if product is not None:
                operations += self.consumers[output]
                output = product
            named[self.name(output)] = tuple(operations)
        return named

    def decoding(self) -> list[Operation]:
        """Box decoding: every operation between the last trained layers and the outputs, in execution order."""
        pending = list(self.outputs)
        inside: dict[int, Operation] = {}
        while pending:
            op = self.producer.get(pending.pop())
            if op is not None and op.index not in inside and not self._ends_layer(op):
                inside[op.index] = op
                pending.extend(op.inputs)
        return [inside[index] for index in sorted(inside)]

    def source(self, op: Operation) -> int:
        """The tensor whose values an operation of :data:`.operators.SAME_SCALE` hands on: SPLIT names an axis first."""
        return op.inputs[-1] if op.kind == "SPLIT" else op.inputs[0]


def _decodes(kernel: np.ndarray) -> bool:
    """True for weights that are not trained but decode boxes.

    They take the expectation of one distribution, (1, 1, 1, reg_max) rising by 1; or combine a cell's four distances or
    their distributions, (2 or 4, 1, 1, 4 * reg_max): each output takes one or two of the four, with either sign and
    all with the same weights, which rise evenly.
    """
    if len(kernel) == 1:
        bins = kernel.ravel()
        return bins.size > 1 and np.array_equal(bins - bins[0], np.arange(bins.size))
    if kernel.shape[1:-1] != (1, 1) or kernel.shape[-1] % 4:
        return False
    sides = np.abs(kernel.reshape(len(kernel), 4, -1))
    taken = sides.any(2)
    if not set(taken.sum(1)) <= {1, 2}:
        return False
    bins = sides[taken]
    steps = np.diff(bins, axis=1)
    alike = np.allclose(bins, bins[0], rtol=1e-5, atol=0) and np.allclose(steps, steps[:, :1], rtol=1e-4, atol=0)
    return bool(alike and (steps > 0).all())


_DTYPES = {code: name for name, code in vars(schema.TensorType).items() if not name.startswith("_")}
_INTEGERS = {schema.TensorType.INT8: np.int8, schema.TensorType.INT32: np.int32, schema.TensorType.INT64: np.int64}
