"""What Frigate's two detectors make of a file's outputs, written anew from what they do (Frigate of 23 July 2026).

`frigate/detectors/plugins/edgetpu_tfl.py` reads `.tflite` files of the type "yolo-generic", and `post_process_yolo` in
`frigate/util/model.py` the outputs of OpenVINO models. Both give at most 20 objects with a score over 0.4, and both
suppress overlaps with `cv2.dnn.NMSBoxes`, to which they hand corners x1, y1, x2, y2 where it takes x, y, width, height.
An object far from the upper left corner so counts as a large one and is suppressed too readily: a loss that is no doing
of the file. The functions here therefore give the candidates before that, and what it keeps.

NumPy, and OpenCV for :func:`kept`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SCORE, OVERLAP, MOST = 0.4, 0.4, 20
STRIDES, BINS = (8, 16, 32), 16


@dataclass(frozen=True)
class Candidates:
    """What may be an object.

    Attributes:
        boxes: (N, 4) float32 x1, y1, x2, y2 in pixels of the input.
        scores: (N,) float32.
        classes: (N,) int.
        order: (N,) what the suppression ranks by, not negative.
        lowest: of `order` that the suppression takes.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    order: np.ndarray
    lowest: float


@dataclass(frozen=True)
class Stored:
    """An 8-bit output: (1, N, C) as stored, and its scale and zero point."""

    array: np.ndarray
    scale: float
    zero_point: int


def roles(shapes: Sequence[tuple[int, ...]]) -> tuple[int, int]:
    """Which output holds the boxes and which the classes: their order and names are not relied on, their shapes are.

    Raises:
        ValueError: there are not two or three outputs, or none of a shape that fits.
    """
    if len(shapes) not in {2, 3}:
        raise ValueError(f"invalid count of output tensors: found {len(shapes)}, expecting 2 or 3")
    boxes = [i for i, shape in enumerate(shapes) if len(shape) == 3 and shape[2] == 4 * BINS]
    classes = [i for i, shape in enumerate(shapes) if len(shape) == 3 and shape[2] not in {1, 4 * BINS}]
    if not boxes or not classes:
        raise ValueError(f"unexpected shapes of output tensors: {list(shapes)}")
    return boxes[-1], classes[-1]


def edgetpu(boxes: Stored, logits: Stored, size: tuple[int, int]) -> Candidates:
    """The Edge TPU detector's decoding.

    Args:
        boxes: (1, N, 64), for left, top, right and bottom the logits of 16 bins; the levels one behind the other.
        logits: (1, N, classes). The detector's authors advise to clamp them to -4 to 4, so that the steps are fine
            between scores of 2 and 98 %; the threshold is turned into a stored number, rounded towards zero.
        size: (height, width) of the input.
    """
    threshold = np.log(SCORE / (1 - SCORE))
    best = logits.array[0].max(1)
    rows = np.flatnonzero(best >= int(threshold / logits.scale + logits.zero_point))
    value = (best[rows].astype(np.float32) - logits.zero_point) * logits.scale
    bins = (boxes.array[0][rows].astype(np.float32) - boxes.zero_point) * boxes.scale
    bins = bins.reshape(-1, 4, BINS)
    weights = np.exp(bins - bins.max(2, keepdims=True))
    distances = (weights / weights.sum(2, keepdims=True)) @ np.arange(BINS, dtype=np.float32)
    centers, strides = (part[rows] for part in _grid(size))
    corners = np.concatenate((centers - distances[:, :2], centers + distances[:, 2:]), 1) * strides
    shift = max(0, int(np.ceil((128 + logits.zero_point) * logits.scale))) + 1
    classes = logits.array[0][rows].argmax(1)
    return Candidates(corners, 1 / (1 + np.exp(-value)), classes, value + shift, float(threshold + shift))


def openvino(output: np.ndarray) -> Candidates:
    """`post_process_yolo` for a model with one output: (1, 4 + classes, N), centers and sizes in pixels, and scores."""
    rows = np.squeeze(output)
    rows = rows.T if rows.shape[0] < rows.shape[1] else rows
    scores = rows[:, 4:].max(1)
    rows, scores = rows[scores > SCORE], scores[scores > SCORE]
    half = rows[:, 2:4] / 2
    corners = np.concatenate((rows[:, :2] - half, rows[:, :2] + half), 1)
    return Candidates(corners, scores, rows[:, 4:].argmax(1), scores, SCORE)


def kept(found: Candidates) -> np.ndarray:
    """Indices of the candidates that the detectors keep, corners taken for sizes as they do."""
    import cv2

    if not len(found.scores):
        return np.empty(0, np.int64)
    order = found.order.astype(np.float32)
    return np.asarray(cv2.dnn.NMSBoxes(found.boxes, order, found.lowest, OVERLAP), np.int64).ravel()[:MOST]


def _grid(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(N, 2) centers of the cells in cells, and (N, 1) their strides in pixels."""
    centers, strides = [], []
    for stride in STRIDES:
        y, x = np.mgrid[: size[0] // stride, : size[1] // stride].astype(np.float32) + 0.5
        centers.append(np.stack((x.ravel(), y.ravel()), 1))
        strides.append(np.full((x.size, 1), stride, np.float32))
    return np.concatenate(centers), np.concatenate(strides)
