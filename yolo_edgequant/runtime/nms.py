"""Non-maximum suppression, with the results of the kernels that Ultralytics uses (torchvision's, and its Fast NMS)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_BLOCK = 512
_CLASS_OFFSET = 7680  # pixels between the boxes of two classes, so that they cannot meet
_EPSILON = np.float32(1e-7)


def nms(
    boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, iou: float, max_det: int, agnostic_nms: bool
) -> np.ndarray:
    """Which boxes to keep: each that no better kept one of its class overlaps by more than `iou`.

    Args:
        boxes: (N, 4) float32 x1, y1, x2, y2.
        scores: (N,) float32.
        classes: (N,) int.
        iou: largest intersection over union of two kept boxes, 0 to 1.
        max_det: number of boxes to keep at most.
        agnostic_nms: boxes of different classes suppress each other, too.

    Returns:
        Indices, the best first; of equal scores the earlier first.
    """
    order = np.argsort(-scores, kind="stable")
    apart = boxes if agnostic_nms else boxes + np.float32(_CLASS_OFFSET) * classes[:, None].astype(np.float32)
    apart = apart[order]
    kept = np.empty(0, np.int64)
    for start in range(0, len(order), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(order)))
        if len(kept):
            block = block[~(_overlap(apart[kept], apart[block]) > iou).any(0)]
        over = _overlap(apart[block], apart[block]) > iou
        alive = np.ones(len(block), bool)
        for position in np.flatnonzero(over.sum(1) > 1):  # the others overlap nothing but themselves
            if alive[position]:
                alive[position + 1 :] &= ~over[position, position + 1 :]
        kept = np.concatenate((kept, block[alive]))
        if len(kept) >= max_det:
            break
    return order[kept[:max_det]]


def rotated_nms(
    rotated: np.ndarray, scores: np.ndarray, classes: np.ndarray, iou: float, max_det: int, agnostic_nms: bool
) -> np.ndarray:
    """Which rotated boxes to keep: each that no better one of its class, kept or not, overlaps by more than `iou`.

    Args:
        rotated: (N, 5) float32 centre x, centre y, width, height, angle in radians.
        scores, classes, iou, max_det, agnostic_nms: as for :func:`nms`; the overlap is ProbIoU
            (https://arxiv.org/abs/2106.06072).

    Returns:
        Indices, the best first; of equal scores the earlier first.
    """
    order = np.argsort(-scores, kind="stable")
    apart = rotated[order]
    if not agnostic_nms:
        apart[:, :2] += np.float32(_CLASS_OFFSET) * classes[order, None].astype(np.float32)
    kept: list[np.ndarray] = []
    for start in range(0, len(order), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(order)))
        better = np.arange(block[-1] + 1)
        over = (_gaussian_overlap(apart[better], apart[block]) > iou) & (better[:, None] < block)
        kept.append(block[~over.any(0)])
    return order[np.concatenate(kept)[:max_det]] if kept else order


def overlaps(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(N, M) float32 overlap, 0 to 1, of upright boxes (N, 4) and (M, 4), or of rotated ones (N, 5) and (M, 5)."""
    return _gaussian_overlap(one, other) if one.shape[1] == 5 else _overlap(one, other)


def _overlap(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(N, M) float32 intersection over union of (N, 4) and (M, 4) boxes."""
    a, b = one.T[:, :, None], other.T[:, None, :]
    width = np.minimum(a[2], b[2]) - np.maximum(a[0], b[0])
    height = np.minimum(a[3], b[3]) - np.maximum(a[1], b[1])
    shared = width.clip(0) * height.clip(0)
    area: Callable[[np.ndarray], np.ndarray] = lambda c: (c[2] - c[0]) * (c[3] - c[1])  # noqa: E731
    with np.errstate(invalid="ignore"):  # two boxes without area: nan, which overlaps nothing
        return shared / (area(a) + area(b) - shared)


def _gaussian_overlap(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(N, M) float32 ProbIoU: 1 - the Hellinger distance of the boxes' Gaussians."""
    a1, b1, c1 = (v[:, None] for v in _covariance(one))
    a2, b2, c2 = (v[None] for v in _covariance(other))
    x, y = (one[:, None, axis] - other[None, :, axis] for axis in (0, 1))
    a, b, c = a1 + a2, b1 + b2, c1 + c2
    determinant = a * b - c**2
    distance = (a * y**2 + b * x**2) / (determinant + _EPSILON) / 4
    distance -= c * x * y / (determinant + _EPSILON) / 2
    each = (a1 * b1 - c1**2).clip(0) * (a2 * b2 - c2**2).clip(0)
    distance += np.log(determinant / (4 * np.sqrt(each) + _EPSILON) + _EPSILON) / 2
    return 1 - np.sqrt(1 - np.exp(-distance.clip(_EPSILON, 100)) + _EPSILON)


def _covariance(rotated: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Variances in x and y and the covariance of a box taken as a Gaussian; of a uniform side, length squared / 12."""
    wide, high = rotated[:, 2] ** 2 / 12, rotated[:, 3] ** 2 / 12
    cosine, sine = np.cos(rotated[:, 4]), np.sin(rotated[:, 4])
    return (
        wide * cosine**2 + high * sine**2,
        wide * sine**2 + high * cosine**2,
        (wide - high) * cosine * sine,
    )
