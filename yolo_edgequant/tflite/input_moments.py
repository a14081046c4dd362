"""What a layer's weights meet: means and covariances of the inputs of one output, over the calibration images.

A convolution multiplies its weights with patches of its input, ``rows x columns x channels`` numbers each. How much it
matters to round a weight, and which other weights can make up for it, is in the covariances of these numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .graph import Graph, Operation

_PATCHES = 32  # of an image: neighbours are alike, so more of them say little
_IMAGES = 16  # whose patches are multiplied at once, which takes a third of the time of one by one
_LARGEST = 1152  # inputs of a block; the covariances of all blocks of a large model have to fit into memory


@dataclass(frozen=True)
class Blocks:
    """How the weights of a layer are laid out as matrices, (outputs, inputs) each.

    A group of a grouped or depthwise convolution is a block. Where a group has too many inputs, its channels are
    divided among several blocks, and covariances between these are not looked at.

    Attributes:
        kernel: shape of the weights as the graph has them.
        depthwise: True if the kernel's last axis is of the output channels.
        groups: that share no input.
        parts: of each group, with as many input channels each.
    """

    kernel: tuple[int, ...]
    depthwise: bool
    groups: int
    parts: int

    @classmethod
    def of(cls, graph: Graph, op: Operation) -> Blocks:
        """The blocks of a layer."""
        kernel, channels = graph.shape(op.inputs[1]), graph.shape(op.inputs[0])[-1]
        if op.kind == "DEPTHWISE_CONV_2D":
            return cls(kernel, True, channels, 1)
        own, window = kernel[-1], int(np.prod(kernel[1:-1]))
        if op.kind == "FULLY_CONNECTED":
            channels = own  # whatever the shape of the input is
        parts = next(n for n in range(1, own + 1) if own % n == 0 and (n == own or window * own // n <= _LARGEST))
        return cls(kernel, False, channels // own, parts)

    @property
    def window(self) -> tuple[int, int]:
        """(rows, columns) of a patch."""
        return (self.kernel[1], self.kernel[2]) if len(self.kernel) == 4 else (1, 1)

    def rows(self, kernel: np.ndarray) -> np.ndarray:
        """(blocks, outputs, inputs) of an array of the kernel's shape."""
        if self.depthwise:
            kernel = kernel[0].transpose(2, 0, 1)
        outputs = len(kernel) // self.groups
        split = kernel.reshape(self.groups, outputs, *self.window, self.parts, -1)
        return split.transpose(0, 4, 1, 2, 3, 5).reshape(self.groups * self.parts, outputs, -1)

    def as_kernel(self, rows: np.ndarray) -> np.ndarray:
        """The array of the kernel's shape of which :meth:`rows` gives these."""
        split = rows.reshape(self.groups, self.parts, rows.shape[1], *self.window, -1)
        kernel = split.transpose(0, 2, 3, 4, 1, 5).reshape(self.groups * rows.shape[1], *self.window, -1)
        return (kernel[..., 0].transpose(1, 2, 0) if self.depthwise else kernel).reshape(self.kernel)

    def inputs(self, patches: np.ndarray) -> np.ndarray:
        """(blocks, N, inputs) of patches (N, rows, columns, channels)."""
        split = patches.reshape(len(patches), *self.window, self.groups * self.parts, -1)
        return split.transpose(3, 0, 1, 2, 4).reshape(self.groups * self.parts, len(patches), -1)


class InputMoments:
    """Means and covariances of the inputs of a layer.

    Args:
        graph: float.
        op: one of its layers, no transposed convolution.
    """

    def __init__(self, graph: Graph, op: Operation) -> None:
        self.blocks = Blocks.of(graph, op)
        self._output = graph.shape(op.outputs[0])
        self._strides, self._dilation = graph.strides(op)
        self._chance = np.random.default_rng(op.index)
        self._waiting: list[np.ndarray] = []
        self._count = 0
        self._sums: np.ndarray | None = None
        self._products: np.ndarray | None = None

    def update(self, values: np.ndarray) -> None:
        """Add some patches of the layer's input (float32) for one image."""
        self._waiting.append(self.blocks.inputs(self._patches(values)))
        if len(self._waiting) == _IMAGES:
            self._add()

    @property
    def mean(self) -> np.ndarray:
        """(blocks, inputs) float64."""
        self._add()
        return self._sums / self._count

    @property
    def covariance(self) -> np.ndarray:
        """(blocks, inputs, inputs) float64."""
        mean = self.mean
        return self._products.astype(np.float64) / self._count - mean[:, :, None] * mean[:, None]

    def _add(self) -> None:
        """Add what is waiting to the sums."""
        if not self._waiting:
            return
        rows = np.concatenate(self._waiting, 1)
        sums, products = rows.sum(1, dtype=np.float64), rows.transpose(0, 2, 1) @ rows
        if self._sums is None:
            self._sums, self._products = sums, products
        else:
            self._sums += sums
            self._products += products
        self._count += rows.shape[1]
        self._waiting.clear()

    def _patches(self, values: np.ndarray) -> np.ndarray:
        """(N, rows, columns, channels) at random places, zeros beyond the borders as in TFLite's padding ``SAME``."""
        window = self.blocks.window
        if len(self.blocks.kernel) == 2:
            values = values.reshape(-1, 1, 1, self.blocks.kernel[1])
        maps = self._output[1:3] if len(self.blocks.kernel) == 4 else (1, 1)
        borders = [
            max((outputs - 1) * stride + (size - 1) * step + 1 - have, 0)  # nothing with padding VALID
            for outputs, stride, size, step, have in zip(
                maps, self._strides, window, self._dilation, values.shape[1:3], strict=True
            )
        ]
        if any(borders):
            values = np.pad(values, ((0, 0), *((border // 2, border - border // 2) for border in borders), (0, 0)))
        places = len(values) * maps[0] * maps[1]
        sample = self._chance.choice(places, min(_PATCHES, places), replace=False)
        image, row, column = np.unravel_index(sample, (len(values), *maps))
        rows = row[:, None] * self._strides[0] + np.arange(window[0]) * self._dilation[0]
        columns = column[:, None] * self._strides[1] + np.arange(window[1]) * self._dilation[1]
        return values[image[:, None, None], rows[:, :, None], columns[:, None, :]]
