"""Bias correction: what rounding the weights adds to a layer's output on average goes off its bias.

Rounded weights ``Wq`` shift each output channel by ``(Wq - W) E[x]``, with the mean input ``E[x]`` of the calibration
images (M. Nagel et al., https://arxiv.org/abs/1906.04721, section 4.2). The shift is the same for every pixel, so the
bias, which integer files hold in 32 bits, takes it back at no cost.
"""

from __future__ import annotations

import copy
import logging
from collections import Counter
from collections.abc import Container

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_quantizer.utils import tfl_flatbuffer_utils

from .calibration import Statistics
from .graph import Graph, Operation

LOGGER = logging.getLogger("yolo_edgequant")

_LARGEST = 127  # weights are symmetric, from -127 to 127


def correct(
    content: bytes,
    graph: Graph,
    statistics: dict[int, Statistics],
    granularity: str,
    in_float: Container[int] = (),
) -> bytes:
    """Take the mean error of the rounded weights off the biases of a float model.

    Args:
        content: the float ``.tflite`` file.
        graph: the same, as a graph.
        statistics: of the layers' inputs, with means.
        granularity: of the weights' scales, ``channel`` or ``tensor``.
        in_float: positions of operations whose weights will not be rounded.

    Returns:
        The float file with other biases; tensors keep their indices.
    """
    model = tfl_flatbuffer_utils.read_model(content)
    subgraph = model.subgraphs[0]
    uses = Counter(subgraph.tensors[t].buffer for op in graph.operations for t in op.inputs)
    corrected = 0
    for op in graph.operations:
        position = graph.bias(op)
        if position is None or op.index in in_float:
            continue
        bias = op.inputs[position]
        values = graph.constant(bias) - shift(graph, op, statistics[op.inputs[0]].mean, granularity)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(values.astype(np.float32).tobytes(), np.uint8)
        tensor = subgraph.tensors[bias]
        if uses[tensor.buffer] == 1:
            model.buffers[tensor.buffer] = buffer
        else:  # several layers read one constant, zeros for example
            own = copy.copy(tensor)
            own.name, own.buffer = f"{graph.name(bias)}_of_{op.index}".encode(), len(model.buffers)
            model.buffers.append(buffer)
            subgraph.operators[op.index].inputs[position] = len(subgraph.tensors)
            subgraph.tensors.append(own)
        corrected += 1
    LOGGER.info("bias correction (weights per %s): %d layers", granularity, corrected)
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def shift(graph: Graph, op: Operation, mean: np.ndarray, granularity: str) -> np.ndarray:
    """(C_out,) float64: what rounding a layer's weights adds to its output channels on average.

    Args:
        graph: float.
        op: a layer.
        mean: (C_in,) of its input.
        granularity: ``channel`` or ``tensor``.
    """
    weights = graph.constant(op.inputs[1]).astype(np.float64)
    depthwise = op.kind == "DEPTHWISE_CONV_2D"
    own = -1 if depthwise else 0
    others = tuple(axis for axis in range(weights.ndim) if granularity == "tensor" or axis != own % weights.ndim)
    scale = np.maximum(np.abs(weights).max(others, keepdims=True) / _LARGEST, np.finfo(np.float32).tiny)
    error = np.clip(np.round(weights / scale), -_LARGEST, _LARGEST) * scale - weights
    if depthwise:
        return error.sum((0, 1, 2)) * mean
    return error.sum(tuple(range(1, weights.ndim - 1))) @ mean
