"""Fit an image into the model's input: scaled, centred, grey around it; as Ultralytics' LetterBox does."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from .interpreter import Tensor

_GREY = 114
_BITS = 11  # of OpenCV's interpolation weights


@dataclass(frozen=True)
class Placement:
    """Where an image lies in the model's input, all in pixels.

    Attributes:
        image: (height, width) of the image.
        size: (height, width) of the input.
    """

    image: tuple[int, int]
    size: tuple[int, int]

    @cached_property
    def scaled(self) -> tuple[int, int]:
        """(height, width) of the image in the input."""
        ratio = min(self.size[0] / self.image[0], self.size[1] / self.image[1])
        return max(round(self.image[0] * ratio), 1), max(round(self.image[1] * ratio), 1)

    @cached_property
    def corner(self) -> tuple[int, int]:
        """(top, left) of the image in the input."""
        top, left = (round((outer - inner) / 2 - 0.1) for outer, inner in zip(self.size, self.scaled, strict=True))
        return top, left

    @cached_property
    def gain(self) -> np.ndarray:
        """(2,) float32: x and y in the input, from its corner on, for one pixel of the image."""
        height, width = (inner / outer for inner, outer in zip(self.scaled, self.image, strict=True))
        return np.array([width, height], np.float32)

    def to_image(self, points: np.ndarray) -> np.ndarray:
        """Points of the input (..., 2) as points of the image, not clipped."""
        return (points - np.array(self.corner[::-1], np.float32)) / self.gain

    def clip(self, points: np.ndarray) -> np.ndarray:
        """Points of the image (..., 2), those outside moved to its edge."""
        return points.clip(0, np.array(self.image[::-1], np.float32))


class Letterbox:
    """Turns images into the model's input, in memory that is used again for the next one.

    Args:
        tensor: of the input, (1, H, W, 3) or (1, 3, H, W), whose values are pixels divided by 255.
        channels_last: which of the two.
    """

    def __init__(self, tensor: Tensor, channels_last: bool) -> None:
        self.size = tensor.shape[1:3] if channels_last else tensor.shape[2:4]
        self._canvas = np.full((*self.size, 3), _GREY, np.uint8)
        self._filled: tuple[int, int, int, int] | None = None
        self._channels_last = channels_last
        self._floats = np.empty(tensor.shape, np.float32) if tensor.dtype == np.float32 else None
        self._stored = tensor.stored(np.arange(256) / 255)

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, Placement]:
        """Fit an image, (H, W, 3) uint8 BGR, into the input."""
        placement = Placement(image.shape[:2], self.size)
        scaled = image if placement.scaled == placement.image else resize(image, placement.scaled)
        (top, left), (height, width) = placement.corner, placement.scaled
        if self._filled != (place := (top, left, height, width)):
            self._canvas[:] = _GREY
            self._filled = place
        inside = self._canvas[top : top + height, left : left + width]
        if (opencv := _opencv()) is not None:
            opencv.cvtColor(scaled, opencv.COLOR_BGR2RGB, dst=inside)
        else:
            for channel in range(3):
                inside[..., channel] = scaled[..., 2 - channel]
        return self._store(), placement

    def _store(self) -> np.ndarray:
        """The canvas in the type and layout of the input."""
        if self._floats is not None:
            target = self._floats[0] if self._channels_last else self._floats[0].transpose(1, 2, 0)
            np.divide(self._canvas, np.float32(255), out=target)
            return self._floats
        pixels = self._canvas[None] if self._channels_last else self._canvas.transpose(2, 0, 1)[None]
        if self._stored.dtype == np.uint8 and (self._stored == np.arange(256)).all():
            return np.ascontiguousarray(pixels)
        if self._stored.dtype == np.int8 and (self._stored == np.arange(-128, 128)).all():
            return np.ascontiguousarray(pixels ^ np.uint8(128)).view(np.int8)  # pixel - 128
        return np.ascontiguousarray(self._stored[pixels])


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (H, W, 3) uint8 to `size` (height, width) by bilinear interpolation, with OpenCV if it is installed."""
    opencv = _opencv()
    if opencv is not None:
        return opencv.resize(image, size[::-1], interpolation=opencv.INTER_LINEAR)
    return resize_numpy(image, size)


def resize_numpy(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """:func:`resize` without OpenCV, equal to it but for single grey levels in under 1 % of the pixels.

    Both interpolate in fixed point, with weights of 11 bits in each direction; at exactly half the size, both take the
    mean of each 2 x 2 pixels.
    """
    height, width = image.shape[:2]
    if (height, width) == (2 * size[0], 2 * size[1]):
        sums = image.reshape(size[0], 2, size[1], 2, -1).sum((1, 3), dtype=np.uint16)
        return ((sums + 2) >> 2).astype(np.uint8)
    rows, row_weights = _taps(height, size[0])
    columns, column_weights = _taps(width, size[1])
    wide = image.astype(np.int32)
    across = wide[:, columns[0]] * column_weights[0][:, None] + wide[:, columns[1]] * column_weights[1][:, None]
    first = ((across[rows[0]] >> 4) * row_weights[0][:, None, None]) >> 16
    second = ((across[rows[1]] >> 4) * row_weights[1][:, None, None]) >> 16
    return ((first + second + 2) >> 2).astype(np.uint8)


def _taps(source: int, target: int) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """The two pixels of a line of `source` that each of `target` lies between, and their weights out of 2048."""
    position = ((np.arange(target) + 0.5) * (1 / (target / source)) - 0.5).astype(np.float32)
    low = np.floor(position).astype(np.int64)
    share = position - low.astype(np.float32)
    share[low < 0], low[low < 0] = 0, 0
    share[low >= source - 1], low[low >= source - 1] = 0, source - 1
    weights = [np.rint(w * np.float32(1 << _BITS)).astype(np.int32) for w in (1 - share, share)]
    return (low, np.minimum(low + 1, source - 1)), (weights[0], weights[1])


@lru_cache
def _opencv() -> Any | None:
    """OpenCV, several times as fast, if it is installed."""
    try:
        import cv2
    except ImportError:
        return None
    return cv2
