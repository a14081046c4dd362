"""Float ``.tflite`` to INT8 ``.tflite``: ranges and recipe go to ai-edge-quantizer."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_quantizer import quantizer
from ai_edge_quantizer import recipe as recipes
from ai_edge_quantizer.utils import tfl_flatbuffer_utils

from ..int8 import STEPS
from ..runtime.interpreter import no_warning_of_kept_tensors
from . import packing
from .graph import Graph
from .ranges import Ranges

_ELEMENTWISE = frozenset({"ADD", "SUB", "MUL"})

_OFF_GRID = 1e-3  # of a step, as far as float32 goes


def quantize(content: bytes, graph: Graph, ranges: Ranges, recipe: list[dict[str, Any]]) -> bytes:
    """Quantize a float model.

    Args:
        content: the float ``.tflite`` file.
        graph: the same, perhaps with other weights.
        ranges: per tensor index, (low, high) in the tensor's units.
        recipe: from :func:`.recipe.to_ai_edge`.

    Returns:
        The quantized ``.tflite`` file, its constants inside the FlatBuffer, and no requantization to the scale that is
        already there, which ai-edge-quantizer puts behind a sigmoid even so.
    """
    work = quantizer.Quantizer(content, recipe)
    statistics = {
        graph.name(tensor): {"min": np.array([low], np.float32), "max": np.array([high], np.float32)}
        for tensor, (low, high) in ranges.items()
    }
    with no_warning_of_kept_tensors():
        result = work.quantize(statistics, enable_progress_report=False, enable_progress_bar=False)
    model = packing.unpack(bytes(result.quantized_model))
    _drop_idle(model)
    _hold_exactly(model, graph)
    return packing.pack(model)


def _hold_exactly(model: schema.ModelT, graph: Graph) -> None:
    """Give constants that are added or multiplied the steps on which all of their values lie, if there are such.

    ai-edge-quantizer's steps reach from the least value to the greatest. Anchors are odd multiples of half a cell: on
    those steps they are off by up to half of one, a pixel and more of 640, and on their own steps by nothing.
    """
    wanted = {
        graph.name(tensor): values
        for op in graph.operations
        if op.kind in _ELEMENTWISE
        for tensor in op.inputs
        if (values := graph.constant(tensor)) is not None
    }
    for tensor in model.subgraphs[0].tensors:
        values = wanted.get(tfl_flatbuffer_utils.get_tensor_name(tensor))
        if values is None or tensor.type != schema.TensorType.INT8:
            continue
        exact = grid_of(values)
        if exact is not None:
            step, zero = exact
            stored = (np.round(values / step) + zero).astype(np.int8)
            model.buffers[tensor.buffer].data = np.frombuffer(stored.tobytes(), np.uint8)
            tensor.quantization.scale, tensor.quantization.zeroPoint = [step], [zero]


def grid_of(values: np.ndarray) -> tuple[float, int] | None:
    """The step and the zero point of an int8 grid on which all values lie; None if the least of them is no such step.

    Args:
        values: float32.
    """
    if not values.any():
        return None
    step = float(np.abs(values[values != 0]).min())
    steps = values.astype(np.float64) / step
    low, high = np.round([min(steps.min(), 0), max(steps.max(), 0)])
    if high - low > STEPS or np.abs(steps - np.round(steps)).max() > _OFF_GRID:
        return None
    return step, int(-128 - low)


def _drop_idle(model: schema.ModelT) -> None:
    """Remove the requantizations that change nothing."""
    subgraph = model.subgraphs[0]
    quantize = {i for i, c in enumerate(model.operatorCodes) if c.builtinCode == schema.BuiltinOperator.QUANTIZE}
    same: dict[int, int] = {}
    kept = []
    for op in subgraph.operators:
        op.inputs = [same.get(int(tensor), int(tensor)) for tensor in op.inputs]
        source, target = (subgraph.tensors[ends[0]] for ends in (op.inputs, op.outputs))
        idle = op.opcodeIndex in quantize and op.outputs[0] not in subgraph.outputs and source.type == target.type
        if idle and _grid(source) == _grid(target):
            same[int(op.outputs[0])] = op.inputs[0]
        else:
            kept.append(op)
    subgraph.operators = kept


def _grid(tensor: schema.TensorT) -> tuple[list[float], list[int]] | None:
    """The scales and zero points of a tensor; None if it has none."""
    grid = tensor.quantization
    return None if grid is None or grid.scale is None else (list(grid.scale), list(grid.zeroPoint))


def weights_only(content: bytes) -> bytes:
    """A float model with its weights in 8 bits, which the interpreter computes with in float."""
    work = quantizer.Quantizer(content, recipes.dynamic_wi8_afp32())
    return packing.constants_inside(bytes(work.quantize(enable_progress_report=False).quantized_model))


def half_precision(content: bytes) -> bytes:
    """A float model with its weights in 16 bits."""
    work = quantizer.Quantizer(content)
    work.add_weight_only_config(".*", "*", 16, algorithm_key="float_casting")
    return packing.constants_inside(bytes(work.quantize(enable_progress_report=False).quantized_model))


def unsigned_io(content: bytes) -> bytes:
    """Give a full-integer file uint8 inputs and outputs: a requantization at each int8 end, of the same scale."""
    model = packing.unpack(content)
    subgraph = model.subgraphs[0]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.QUANTIZE
    code.version = 2  # the first that requantizes
    model.operatorCodes.append(code)

    def twin(tensor: int) -> int:
        """A uint8 tensor of the same shape and scale."""
        signed = subgraph.tensors[tensor]
        unsigned = copy.deepcopy(signed)
        unsigned.name = (signed.name if isinstance(signed.name, bytes) else signed.name.encode()) + b"_uint8"
        unsigned.type = schema.TensorType.UINT8
        unsigned.quantization.zeroPoint = [int(z) + 128 for z in signed.quantization.zeroPoint]
        subgraph.tensors.append(unsigned)
        return len(subgraph.tensors) - 1

    def requantize(source: int, target: int) -> schema.OperatorT:
        op = schema.OperatorT()
        op.opcodeIndex = len(model.operatorCodes) - 1
        op.inputs, op.outputs = [source], [target]
        return op

    renamed: dict[int, int] = {}
    for end, before in ((subgraph.inputs, True), (subgraph.outputs, False)):
        for position, tensor in enumerate(int(t) for t in end):
            if subgraph.tensors[tensor].type != schema.TensorType.INT8:
                continue
            renamed[tensor] = end[position] = twin(tensor)
            if before:
                subgraph.operators.insert(0, requantize(renamed[tensor], tensor))
            else:
                subgraph.operators.append(requantize(tensor, renamed[tensor]))
    for signature in model.signatureDefs or []:
        for entry in (*signature.inputs, *signature.outputs):
            entry.tensorIndex = renamed.get(entry.tensorIndex, entry.tensorIndex)
    return packing.pack(model)
