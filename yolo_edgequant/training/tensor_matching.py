"""Which tensors of two graphs of one model are the same, found by their values on one image.

Converters rename, reorder and transpose, but they change no value. So tensors are compared by what no order of the
elements changes: their number, mean, root mean square and extremes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np

Key = TypeVar("Key")

_TOLERANCE = 1e-3  # of the root mean square; runtimes were seen to differ by 1e-5


def probe_image(shape: tuple[int, ...], channels_last: bool = False) -> np.ndarray:
    """An image that excites a detector everywhere: coarse colours, finer ones on them, and noise.

    Args:
        shape: (B, 3, H, W); the images of a batch are the same.
        channels_last: return (B, H, W, 3).

    Returns:
        float32, 0 to 1; the same for the same shape.
    """
    generator = np.random.default_rng(0)
    batch, channels, height, width = shape
    image = np.zeros((channels, height, width), np.float32)
    for size, weight in ((64, 0.5), (16, 0.3), (4, 0.15), (1, 0.05)):
        coarse = generator.random((channels, -(-height // size), -(-width // size)), np.float32)
        image += weight * coarse.repeat(size, 1).repeat(size, 2)[:, :height, :width]
    images = np.stack([image] * batch)
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1)) if channels_last else images


def fingerprint(values: np.ndarray) -> np.ndarray:
    """(5,) float64: number of elements, mean, root mean square, least and greatest value."""
    flat = np.asarray(values, np.float64).reshape(-1)
    return np.array([flat.size, flat.mean(), np.sqrt(np.square(flat).mean()), flat.min(), flat.max()])


def match(wanted: Mapping[int, np.ndarray], known: Mapping[Key, np.ndarray]) -> dict[int, Key]:
    """For each tensor of one graph the one of the other that has its values.

    Args:
        wanted, known: fingerprints.

    Returns:
        The nearest of `known` for each of `wanted` that has one.
    """
    if not known:
        return {}
    keys = list(known)
    table = np.array([known[key] for key in keys])
    matches = {}
    for tensor, print_ in wanted.items():
        distance = np.abs(table[:, 1:] - print_[1:]).max(1)
        distance[table[:, 0] != print_[0]] = np.inf
        nearest = int(distance.argmin())
        if distance[nearest] <= _TOLERANCE * print_[2]:
            matches[tensor] = keys[nearest]
    return matches
