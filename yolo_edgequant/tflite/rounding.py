"""Rounding weights so that they make up for each other.

The nearest step is best for each weight alone. A layer's output is a sum, though, and its inputs go together: what
rounding one weight does to the output can be taken back by those that are not rounded yet. With the covariance ``C`` of
a layer's inputs, the weights are rounded one by one, the ones with the most varying input first, and each time the rest
moves to where the mean squared error of the output, ``(Wq - W) C (Wq - W)'``, is least (GPTQ: E. Frantar et al.,
https://arxiv.org/abs/2210.17323; computed as J. Chen et al., https://arxiv.org/abs/2507.18553, show it to be: Babai's
nearest plane). The mean error goes off the bias, as in :mod:`.bias_correction`.

The inputs are rounded, too, which adds the variance of a rounding to each of theirs.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass

import numpy as np

from ..int8 import LARGEST_WEIGHT, STEPS, round_weights, weight_steps
from ..log import LOGGER
from ..options import Granularity
from .bias_correction import sharing_axes
from .calibration import Statistics
from .graph import Graph, Operation
from .input_moments import InputMoments
from .ranges import Ranges
from .weights import WeightEditor

_DAMPING = 0.01  # of the inputs' mean variance: what a sample cannot tell from nothing is not to be relied upon
_AT_ONCE = 64  # weights of an output after which the rest is moved, which changes nothing but the time it takes


@dataclass(frozen=True)
class RoundedLayer:
    """What a layer gets.

    Attributes:
        kernel: weights on 8-bit steps, float64. The largest for each scale is what it was, so a quantizer takes the
            same steps from it.
        bias: (C_out,) float64, less what the weights add to the output channels on average.
        error_left: mean squared error of the output beside its mean, as a share of what the nearest steps give.
    """

    kernel: np.ndarray
    bias: np.ndarray
    error_left: float


def round_layers(
    graph: Graph, statistics: dict[int, Statistics], ranges: Ranges, granularity: Granularity
) -> dict[int, RoundedLayer]:
    """Round the weights of all layers that have a bias.

    Args:
        graph: float.
        statistics: of the layers' inputs, with moments.
        ranges: of the layers' inputs, (low, high) in their units.
        granularity: of the weights' scales, ``channel`` or ``tensor``.

    Returns:
        By position of the operation.
    """
    layers = {}
    for op in graph.operations:
        if graph.bias(op) is not None:
            low, high = ranges[op.inputs[0]]
            moments, noise = statistics[op.inputs[0]].moments[op.index], ((high - low) / STEPS) ** 2 / 12
            layers[op.index] = round_layer(graph, op, moments, granularity, noise)
    if layers:
        LOGGER.info(
            "weights rounded together (per %s): %d layers, %.0f%% of the nearest steps' error left in the median",
            granularity,
            len(layers),
            100 * np.median([layer.error_left for layer in layers.values()]),
        )
    return layers


def with_weights(graph: Graph, layers: Mapping[int, RoundedLayer], in_float: Container[int] = ()) -> bytes:
    """The float file with other weights and biases; tensors keep their indices.

    Args:
        graph: float.
        layers: from :func:`round_layers`.
        in_float: positions of operations that keep theirs.
    """
    editor = WeightEditor(graph)
    for index, layer in layers.items():
        op = graph.operations[index]
        if index not in in_float:
            editor.replace(op, 1, layer.kernel)
            editor.replace(op, graph.bias(op), layer.bias)
    return editor.content()


def round_layer(
    graph: Graph, op: Operation, moments: InputMoments, granularity: Granularity, input_noise: float
) -> RoundedLayer:
    """Round the weights of a layer.

    Args:
        graph: float.
        op: a layer with a bias.
        moments: of its inputs.
        granularity: ``channel`` or ``tensor``.
        input_noise: variance of the rounding of an input, in its units squared.
    """
    blocks = moments.blocks
    weights = graph.constant(op.inputs[1]).astype(np.float64)
    sharing = sharing_axes(op, weights.ndim, granularity)
    steps = np.broadcast_to(weight_steps(weights, sharing), weights.shape)
    covariance = moments.covariance
    diagonal = np.arange(covariance.shape[-1])
    covariance[:, diagonal, diagonal] += input_noise
    exact = blocks.rows(weights)
    kernel = blocks.as_kernel(compensated(exact, blocks.rows(steps), covariance))
    # the weights that scales are taken from, which the others' errors may have moved
    largest = np.abs(weights) == np.abs(weights).max(sharing, keepdims=True)
    kernel = np.where(largest, weights, kernel)
    change = blocks.rows(kernel) - exact
    error, nearest = (_error(c, covariance) for c in (change, blocks.rows(round_weights(weights, sharing)) - exact))
    shift = (change @ moments.mean[:, :, None])[..., 0].reshape(blocks.groups, blocks.parts, -1).sum(1).reshape(-1)
    bias = graph.constant(op.inputs[graph.bias(op)]) - shift
    return RoundedLayer(kernel, bias, error / nearest if nearest else 1.0)


def compensated(weights: np.ndarray, steps: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Round weights one by one, the rest making up for each rounding.

    Args:
        weights: (blocks, outputs, inputs) float64.
        steps: of each weight, the same shape; above 0.
        covariance: (blocks, inputs, inputs) float64 of the inputs.

    Returns:
        Multiples of the steps, -127 to 127 of them.
    """
    variances = np.diagonal(covariance, axis1=1, axis2=2)
    order = np.argsort(variances, 1, kind="stable")[:, :, None]  # from the last one on
    # the weights of an input side by side, as they are rounded together
    exact, steps = (np.take_along_axis(values.transpose(0, 2, 1), order, 1) for values in (weights, steps))
    covariance = np.take_along_axis(np.take_along_axis(covariance, order, 1), order.transpose(0, 2, 1), 2)
    # with C = L L', the error of an output is the sum of squares of (W - Wq) L, whose columns i have nothing of the
    # weights before i: a weight takes in what the errors of those after it leave in its column
    factor = _factor(covariance)
    factor /= np.diagonal(factor, axis1=1, axis2=2)[:, None]
    rounded, moved = np.zeros_like(exact), exact.copy()
    for end in range(exact.shape[1], 0, -_AT_ONCE):
        start = max(end - _AT_ONCE, 0)
        for i in range(end - 1, start - 1, -1):
            step = steps[:, i]
            rounded[:, i] = np.clip(np.round(moved[:, i] / step), -LARGEST_WEIGHT, LARGEST_WEIGHT) * step
            moved[:, start:i] += factor[:, i, start:i, None] * (exact[:, i] - rounded[:, i])[:, None]
        error = exact[:, start:end] - rounded[:, start:end]
        moved[:, :start] += factor[:, start:end, :start].transpose(0, 2, 1) @ error
    return np.take_along_axis(rounded, np.argsort(order, 1), 1).transpose(0, 2, 1)


def _factor(covariance: np.ndarray) -> np.ndarray:
    """The lower triangular factors of damped covariances, (blocks, inputs, inputs)."""
    scale = np.trace(covariance, axis1=1, axis2=2)[:, None, None] / covariance.shape[-1]
    scale = np.where(scale > 0, scale, 1.0)  # nothing but zeros was seen
    damping = _DAMPING
    while True:
        try:
            return np.linalg.cholesky(covariance + damping * scale * np.eye(covariance.shape[-1]))
        except np.linalg.LinAlgError:  # inputs that hardly vary, whose covariances float32 sums give no better
            damping *= 10


def _error(difference: np.ndarray, covariance: np.ndarray) -> float:
    """Sum over the outputs of the variance that a difference of the weights, (blocks, outputs, inputs), gives them."""
    return float(((difference @ covariance) * difference).sum())
