"""Decoding in NumPy, of the candidates only: the cells whose score passes the threshold.

The arithmetic is that of :mod:`.in_torch`, in pixels of the input instead of shares of it; the tests hold the two
against each other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def cells(index: np.ndarray, strides: Sequence[int], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Where cells lie.

    Args:
        index: (N,) int, positions in the row of all cells: the levels in order, each row by row.
        strides: of the levels, pixels.
        size: (height, width) of the input in pixels.

    Returns:
        (N, 2) float32, x and y of the cells' centres in pixels; (N, 1) float32, their strides.
    """
    height, width = size
    counts = [(height // stride) * (width // stride) for stride in strides]
    starts = np.concatenate(([0], np.cumsum(counts)[:-1]))
    level = np.searchsorted(starts, index, side="right") - 1
    stride = np.asarray(strides)[level]
    row, column = np.divmod(index - starts[level], width // stride)
    centres = (np.stack((column, row), 1) + 0.5) * stride[:, None]
    return centres.astype(np.float32), stride[:, None].astype(np.float32)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """The logistic function, float32 in and out."""
    return 1 / (1 + np.exp(-logits))


def distances(raw: np.ndarray, reg_max: int) -> np.ndarray:
    """Distances to the sides of a box, in cells: (N, 4) from (N, 4 * reg_max) outputs of the box convolutions.

    With `reg_max` over 1 they are the means of distributions over 0, 1, …, reg_max - 1, given by their logits.
    """
    if reg_max == 1:
        return raw
    weights = np.exp(raw.reshape(-1, reg_max) - raw.reshape(-1, reg_max).max(1, keepdims=True))
    means = weights @ np.arange(reg_max, dtype=np.float32) / weights.sum(1)
    return means.reshape(-1, 4)


def boxes(distances: np.ndarray, centres: np.ndarray, strides: np.ndarray) -> np.ndarray:
    """(N, 4) float32 corners x1, y1, x2, y2 in pixels.

    Args:
        distances: (N, 4), left, top, right, bottom in cells.
        centres, strides: from :func:`cells`.
    """
    near, far = distances[:, :2] * strides, distances[:, 2:] * strides
    return np.concatenate((centres - near, centres + far), 1)


def rotated_boxes(distances: np.ndarray, angle: np.ndarray, centres: np.ndarray, strides: np.ndarray) -> np.ndarray:
    """(N, 4) float32: centre x, centre y, width, height in pixels of boxes that are turned around their cell.

    Args:
        distances: (N, 4), left, top, right, bottom in cells, in the box's own frame.
        angle: (N, 1), radians.
        centres, strides: from :func:`cells`.
    """
    near, far = distances[:, :2] * strides, distances[:, 2:] * strides
    x, y = np.split((far - near) / 2, 2, 1)
    cosine, sine = np.cos(angle), np.sin(angle)
    offset = np.concatenate((x * cosine - y * sine, x * sine + y * cosine), 1)
    return np.concatenate((centres + offset, near + far), 1)


def turned(boxes: np.ndarray, angle: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Rotated boxes from those that a file decoded as if their angle were 0.

    Args:
        boxes: (N, 4), centre x, centre y, width, height in pixels.
        angle: (N, 1), radians.
        centres: from :func:`cells`.

    Returns:
        (N, 4) float32, the centres turned around their cells.
    """
    x, y = np.split(boxes[:, :2] - centres, 2, 1)
    cosine, sine = np.cos(angle), np.sin(angle)
    offset = np.concatenate((x * cosine - y * sine, x * sine + y * cosine), 1)
    return np.concatenate((centres + offset, boxes[:, 2:]), 1)


def keypoints(
    raw: np.ndarray, shape: tuple[int, int], gain: float, offset: float, centres: np.ndarray, strides: np.ndarray
) -> np.ndarray:
    """(N, K, D) float32 keypoints: x and y in pixels, and a visibility from 0 to 1 where D is 3.

    Args:
        raw: (N, K * D) or (N, K, D) outputs of the keypoint convolutions.
        shape: (K, D).
        gain, offset: a keypoint lies ``raw * gain + offset`` cells from the centre of its cell.
        centres, strides: from :func:`cells`.
    """
    values = raw.reshape(-1, *shape)
    points = (values[:, :, :2] * gain + offset) * strides[:, None] + centres[:, None]
    return np.concatenate((points, sigmoid(values[:, :, 2:])), 2) if shape[1] == 3 else points
