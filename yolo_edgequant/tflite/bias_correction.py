"""Bias correction: what rounding the weights adds to a layer's output on average goes off its bias.

Rounded weights ``Wq`` shift each output channel by ``(Wq - W) E[x]``, with the mean input ``E[x]`` of the calibration
images (M. Nagel et al., https://arxiv.org/abs/1906.04721, section 4.2). The shift is the same for every pixel, so the
bias, which integer files hold in 32 bits, takes it back at no cost.
"""

from __future__ import annotations

from collections.abc import Container

import numpy as np

from ..int8 import STEPS, round_weights
from ..log import LOGGER
from ..options import Granularity
from .calibration import Statistics
from .graph import Graph, Operation
from .weights import WeightEditor


def correct_biases(
    graph: Graph,
    statistics: dict[int, Statistics],
    granularity: Granularity,
    in_float: Container[int] = (),
) -> bytes:
    """Take the mean error of the rounded weights off the biases of a float model.

    Args:
        graph: float.
        statistics: of the layers' inputs, with means.
        granularity: of the weights' scales, ``channel`` or ``tensor``.
        in_float: positions of operations whose weights will not be rounded.

    Returns:
        The float file with other biases; tensors keep their indices.
    """
    editor = WeightEditor(graph)
    steps = []
    for op in graph.operations:
        position = graph.bias(op)
        if position is None or op.index in in_float:
            continue
        shift = expected_shift(graph, op, statistics[op.inputs[0]].mean, granularity)
        editor.replace(op, position, graph.constant(op.inputs[position]) - shift)
        output = statistics[op.outputs[0]]
        steps.append(np.abs(shift).mean() * STEPS / max(output.maximum - output.minimum, np.finfo(np.float32).tiny))
    if steps:
        LOGGER.info(
            "bias correction (weights per %s): %d layers, by %.2f of an 8-bit step on average, %.2f at most",
            granularity,
            len(steps),
            np.mean(steps),
            np.max(steps),
        )
    return editor.content()


def expected_shift(graph: Graph, op: Operation, mean: np.ndarray, granularity: Granularity) -> np.ndarray:
    """(C_out,) float64: what rounding a layer's weights adds to its output channels on average.

    Args:
        graph: float.
        op: a layer.
        mean: (C_in,) of its input.
        granularity: ``channel`` or ``tensor``.
    """
    weights = graph.constant(op.inputs[1]).astype(np.float64)
    error = round_weights(weights, sharing_axes(op, weights.ndim, granularity)) - weights
    if op.kind == "DEPTHWISE_CONV_2D":
        return error.sum((0, 1, 2)) * mean
    return error.sum(tuple(range(1, weights.ndim - 1))) @ mean


def sharing_axes(op: Operation, axes: int, granularity: Granularity) -> tuple[int, ...]:
    """The axes of a layer's weights, of so many, along which they share a scale."""
    own = axes - 1 if op.kind == "DEPTHWISE_CONV_2D" else 0
    return tuple(axis for axis in range(axes) if granularity == Granularity.TENSOR or axis != own)
