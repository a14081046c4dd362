"""Cross-layer equalization: channels of one layer get alike ranges of weights, and the next layer takes it back.

With ``f(s x) = s f(x)``, as for ReLU, an output channel of a layer can be divided by ``s`` and the next layer's weights
for it multiplied by ``s``: the float model stays the same, and one scale a tensor fits all channels better. For ranges
``r1`` and ``r2`` of the two layers' weights for a channel, ``s = sqrt(r1 / r2)`` makes both ``sqrt(r1 r2)`` (M. Nagel
et al., https://arxiv.org/abs/1906.04721, section 4.1). SiLU, ReLU6 and Hardswish are not of this kind; pairs with one
of them in between are left alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..log import LOGGER
from .graph import Graph, Operation
from .operators import CONVOLUTIONS, HOMOGENEOUS
from .weights import WeightEditor

_SWEEPS = 40
_SETTLED = 1e-3


@dataclass(frozen=True)
class Pair:
    """Two convolutions of which the second alone reads what the first writes.

    Attributes:
        first, second: operations of the graph.
    """

    first: Operation
    second: Operation


def equalize(graph: Graph) -> Graph:
    """Equalize the weights of a float model.

    Returns:
        A float graph that computes the same up to rounding; `graph` itself if there is no pair of layers.
    """
    neighbours = pairs(graph)
    if not neighbours:
        return graph
    layers = {op.index: op for pair in neighbours for op in (pair.first, pair.second)}
    kernels = {index: graph.constant(op.inputs[1]).astype(np.float64) for index, op in layers.items()}
    biases = {
        index: graph.constant(op.inputs[2]).astype(np.float64)
        for index, op in layers.items()
        if graph.bias(op) is not None
    }
    before = _spread(neighbours, kernels)
    for _ in range(_SWEEPS):
        largest = 0.0
        for pair in neighbours:
            factors = _factors(pair, kernels)
            own, next_ = CONVOLUTIONS[pair.first.kind], 3  # input channels, or a depthwise kernel's channels
            kernels[pair.first.index] /= _along(factors, own)
            if pair.first.index in biases:
                biases[pair.first.index] /= factors
            kernels[pair.second.index] *= _along(factors, next_)
            largest = max(largest, float(np.abs(np.log(factors)).max()))
        if largest < _SETTLED:
            break
    editor = WeightEditor(graph)
    for index, kernel in kernels.items():
        editor.replace(layers[index], 1, kernel)
    for index, bias in biases.items():
        editor.replace(layers[index], 2, bias)
    LOGGER.info(
        "equalization: %d pairs of layers, ranges of channels within a factor of %.1f (median; %.1f before)",
        len(neighbours),
        _spread(neighbours, kernels),
        before,
    )
    return Graph(editor.content())


def pairs(graph: Graph) -> list[Pair]:
    """The pairs of convolutions that can be equalized, in execution order.

    Kernels that several operations read are left alone, as a change would reach all of them.
    """
    neighbours = []
    for op in graph.operations:
        if not _has_own_kernel(graph, op) or not graph.homogeneous(op):
            continue
        reader = op
        while True:
            (tensor,) = reader.outputs
            readers = graph.consumers[tensor]
            if len(readers) != 1 or tensor in graph.outputs:
                break
            reader = readers[0]
            if reader.kind not in HOMOGENEOUS or not graph.homogeneous(reader):
                if reader.inputs[0] == tensor and _has_own_kernel(graph, reader) and _matches(graph, op, reader):
                    neighbours.append(Pair(op, reader))
                break
    return neighbours


def _has_own_kernel(graph: Graph, op: Operation) -> bool:
    return op.kind in CONVOLUTIONS and graph.is_layer(op) and len(graph.consumers[op.inputs[1]]) == 1


def _matches(graph: Graph, first: Operation, second: Operation) -> bool:
    """False for grouped convolutions, whose kernel's last axis is not the input's channels."""
    return graph.shape(first.inputs[1])[CONVOLUTIONS[first.kind]] == graph.shape(second.inputs[1])[3]


def _ranges(kernel: np.ndarray, axis: int) -> np.ndarray:
    return np.abs(kernel).max(tuple(a for a in range(4) if a != axis))


def _along(factors: np.ndarray, axis: int) -> np.ndarray:
    return factors.reshape([-1 if a == axis else 1 for a in range(4)])


def _factors(pair: Pair, kernels: dict[int, np.ndarray]) -> np.ndarray:
    """(C,) of the channels between the layers; 1 where one of them has no weights but zeros."""
    one = _ranges(kernels[pair.first.index], CONVOLUTIONS[pair.first.kind])
    other = _ranges(kernels[pair.second.index], 3)
    alive = (one > 0) & (other > 0)
    return np.sqrt(np.where(alive, one, 1) / np.where(alive, other, 1))


def _spread(neighbours: list[Pair], kernels: dict[int, np.ndarray]) -> float:
    """Largest over smallest range of the channels of a layer, the median over the first layers of the pairs."""
    ratios = []
    for pair in neighbours:
        ranges = _ranges(kernels[pair.first.index], CONVOLUTIONS[pair.first.kind])
        ranges = ranges[ranges > 0]
        if ranges.size:
            ratios.append(ranges.max() / ranges.min())
    return float(np.median(ratios)) if ratios else 1.0
