"""A file's tensors and operators, of one type for both families."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

#: Constants of at most so many bytes are kept, to tell strides and bins of a distribution from trained weights.
KEPT_BYTES = 1 << 17

#: Operators that multiply by trained weights, and the position of the weights among their inputs.
WEIGHTED = {
    "CONV_2D": 1,
    "DEPTHWISE_CONV_2D": 1,
    "FULLY_CONNECTED": 1,
    "TRANSPOSE_CONV": 1,
    "Convolution": 1,
    "GroupConvolution": 1,
    "ConvolutionBackpropData": 1,
    "GroupConvolutionBackpropData": 1,
    "MatMul": 1,
}


@dataclass(frozen=True)
class Tensor:
    """A tensor of a file.

    Attributes:
        name: in the file, in one line.
        shape: as stored; -1 for what is dynamic.
        dtype: as stored, for example ``int8``; of OpenVINO weights, before they are converted to float.
        scales: float64, one, or one a channel; empty if nothing is quantized.
        zero_points: one for each scale.
        constant: part of the file, not computed.
        size: of a constant, bytes.
        values: of a small constant as stored; None for all else.
        levels: of the grid, 256 for 8 bits; 0 if nothing is quantized.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scales: np.ndarray = field(default_factory=lambda: np.empty(0), compare=False)
    zero_points: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64), compare=False)
    constant: bool = False
    size: int = 0
    values: np.ndarray | None = field(default=None, compare=False)
    levels: int = 0

    @property
    def scale(self) -> float | None:
        """The one scale of the tensor; None if it has none or several, or one that is no step."""
        return float(self.scales[0]) if len(self.scales) == 1 and self.scales[0] > 0 else None

    @property
    def span(self) -> float:
        """What the grid covers, from its least value to its greatest; 0 without a scale."""
        return 0.0 if self.scale is None else self.scale * (self.levels - 1)

    @property
    def is_dynamic(self) -> bool:
        """True if a side is not known."""
        return any(side < 0 for side in self.shape)

    def dequantized(self) -> np.ndarray | None:
        """A small constant's values in float64; None for all else."""
        if self.values is None:
            return None
        values = self.values.astype(np.float64)
        return values if self.scale is None else (values - int(self.zero_points[0])) * self.scale


@dataclass(frozen=True)
class Node:
    """An operator.

    Attributes:
        index: position in execution order.
        kind: TFLite's name, for example ``CONV_2D``, or OpenVINO's type.
        version: of the operator; of OpenVINO's, of the set of operators.
        inputs, outputs: tensor indices; absent optional inputs are left out.
        options: TFLite's options or OpenVINO's attributes, by name.
    """

    index: int
    kind: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any] = field(compare=False)


@dataclass(frozen=True)
class Model:
    """What is in a file.

    Attributes:
        path: the ``.tflite`` file, or the ``.xml`` of an OpenVINO model.
        family: ``tflite`` or ``openvino``.
        tensors, nodes: of the main graph; nodes in execution order.
        inputs, outputs: tensor indices.
        size: of the file, or of both files, bytes.
        weights: bytes of all constants.
        outside: how many constants lie behind the FlatBuffer.
        subgraphs: how many graphs there are besides.
        metadata: that came with the file, whoever wrote it.
    """

    path: Path
    family: str
    tensors: tuple[Tensor, ...]
    nodes: tuple[Node, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    size: int
    weights: int
    outside: int
    subgraphs: int
    metadata: Mapping[str, Any] = field(compare=False)

    @cached_property
    def producer(self) -> dict[int, Node]:
        """The operator that writes each tensor."""
        return {tensor: node for node in self.nodes for tensor in node.outputs}

    @cached_property
    def consumers(self) -> Mapping[int, list[Node]]:
        """The operators that read each tensor, in execution order."""
        readers: dict[int, list[Node]] = defaultdict(list)
        for node in self.nodes:
            for tensor in node.inputs:
                readers[tensor].append(node)
        return readers

    @property
    def computed(self) -> list[int]:
        """Every tensor that depends on the input, in order, the inputs first."""
        return list(dict.fromkeys((*self.inputs, *(tensor for node in self.nodes for tensor in node.outputs))))

    @property
    def side(self) -> int:
        """The longer side of the image that is the input, pixels; 0 if there is no such input."""
        shape = self.tensors[self.inputs[0]].shape if len(self.inputs) == 1 else ()
        if len(shape) != 4:
            return 0
        return max(shape[1:3] if shape[3] in {1, 3} else shape[2:4])

    def weights_of(self, node: Node) -> Tensor | None:
        """The trained weights of an operator; None if it has none.

        The DFL convolution (weights 0, 1, 2, …) has none: it takes an expectation and belongs to box decoding.
        """
        position = WEIGHTED.get(node.kind)
        if position is None or len(node.inputs) <= position:
            return None
        weights = self.tensors[node.inputs[position]]
        return None if not weights.constant or _counts_up(weights) else weights


def _counts_up(weights: Tensor) -> bool:
    """True for weights that rise by 1, as DFL's do from 0 or 7/8 on, within what rounding to 8 bits leaves of it."""
    values = weights.dequantized()
    if values is None or not 1 < values.size <= 64:
        return False
    bins = values.ravel() - values.ravel()[0]
    return bool(np.abs(bins - np.arange(values.size)).max() <= max(1.02 * (weights.scale or 0.0), 1e-3))
