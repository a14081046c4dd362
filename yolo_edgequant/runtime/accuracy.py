"""mAP in NumPy, as Ultralytics counts it: of upright boxes, from images' labels in its own format.

Ultralytics' validation lets a cell stand for several classes: detections have to, too, or about a point is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InferenceError
from .nms import overlaps

#: A detection is right from this overlap on; mAP50-95 is the mean over all of them.
THRESHOLDS = np.linspace(0.5, 0.95, 10)

_RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class Boxes:
    """Boxes in an image.

    Attributes:
        boxes: (N, 4) float32 x1, y1, x2, y2 in pixels.
        classes: (N,) int64.
        scores: (N,) float32 of detections; None for labels.
    """

    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray | None = None


@dataclass(frozen=True)
class Accuracy:
    """Mean average precision over the classes that have a label, 0 to 1.

    Attributes:
        map: over overlaps of 0.5 to 0.95.
        map50: at an overlap of 0.5.
        images, labels: how many there were.
    """

    map: float
    map50: float
    images: int
    labels: int


def read_labels(file: Path, size: tuple[int, int], task: str) -> Boxes:
    """The labels of an image, of `size` (height, width) in pixels; none if there is no such file, as in Ultralytics.

    Each line is a class and, in shares of the image, center x, center y, width, height and what a pose adds, or for
    `segment` the corners of an outline, which the box is drawn around.

    Raises:
        InferenceError: a line is something else.
    """
    rows = []
    for number, line in enumerate(file.read_text().splitlines() if file.is_file() else [], 1):
        if not line.strip():
            continue
        try:
            values = np.array(line.split(), np.float64)
            if len(values) < 5:
                raise ValueError(f"{len(values)} numbers")
        except ValueError as error:
            raise InferenceError(f"'{file}', line {number}, is no label of a box: {error}") from error
        if task == "segment" and len(values) > 5:
            outline = values[1:].reshape(-1, 2)
            box = np.concatenate((outline.min(0), outline.max(0)))
        else:
            box = np.concatenate((values[1:3] - values[3:5] / 2, values[1:3] + values[3:5] / 2))
        rows.append((values[0], *box))
    table = np.unique(np.array(rows, np.float64).reshape(-1, 5), axis=0)
    boxes = table[:, 1:] * np.array([size[1], size[0], size[1], size[0]])
    return Boxes(boxes.astype(np.float32), table[:, 0].astype(np.int64))


def labels_folder(images: Path) -> Path:
    """Where Ultralytics looks for the labels of a folder of images: the last ``images`` in its path is ``labels``."""
    parts = images.absolute().parts
    if "images" not in parts:
        return images
    last = len(parts) - 1 - parts[::-1].index("images")
    return Path(*parts[:last], "labels", *parts[last + 1 :])


def accuracy(detections: Sequence[Boxes], labels: Sequence[Boxes]) -> Accuracy:
    """The accuracy of detections with scores from 0.001 on, image by image beside the labels.

    Raises:
        InferenceError: there is no label.
    """
    count = sum(len(one.classes) for one in labels)
    if not count:
        raise InferenceError("no image has a label; give the folder with --labels")
    right = [_right(ours, true) for ours, true in zip(detections, labels, strict=True)]
    hits = np.concatenate(right)
    scores = np.concatenate([ours.scores for ours in detections])
    classes = np.concatenate([ours.classes for ours in detections])
    true_classes = np.concatenate([true.classes for true in labels])
    order = np.argsort(-scores, kind="stable")
    hits, classes = hits[order], classes[order]
    precisions = []
    for index in np.unique(true_classes):
        mine = hits[classes == index]
        precisions.append(_average_precision(mine, int((true_classes == index).sum())))
    table = np.array(precisions)
    return Accuracy(float(table.mean()), float(table[:, 0].mean()), len(labels), count)


def _right(ours: Boxes, true: Boxes) -> np.ndarray:
    """(N, 10) bool: which detections are right at each threshold.

    The best detection chooses first, among the labels of its class that no better one has: so does Ultralytics.
    """
    right = np.zeros((len(ours.classes), len(THRESHOLDS)), bool)
    if not len(ours.classes) or not len(true.classes):
        return right
    shared = np.nan_to_num(overlaps(true.boxes, ours.boxes))
    shared[true.classes[:, None] != ours.classes] = 0
    taken = np.zeros((len(true.classes), len(THRESHOLDS)), bool)
    columns = np.arange(len(THRESHOLDS))
    for detection in np.argsort(-ours.scores, kind="stable"):
        if shared[:, detection].max() < THRESHOLDS[0]:
            continue
        free = np.where(taken, 0, shared[:, detection, None])
        label = free.argmax(0)
        right[detection] = free[label, columns] >= THRESHOLDS
        taken[label, columns] |= right[detection]
    return right


def _average_precision(hits: np.ndarray, labels: int) -> np.ndarray:
    """(10,) areas under a class's curve of precision over recall.

    Args:
        hits: (N, 10) bool, of its detections, the best first.
        labels: their number.
    """
    areas = np.zeros(len(THRESHOLDS))
    if not len(hits):
        return areas
    true = hits.cumsum(0)
    recall = true / (labels + 1e-16)
    precision = true / np.arange(1, len(hits) + 1)[:, None]
    for column in range(len(THRESHOLDS)):
        across = np.concatenate(([0.0], recall[:, column], [recall[-1, column], 1.0]))
        up = np.concatenate(([1.0], precision[:, column], [0.0, 0.0]))
        up = np.flip(np.maximum.accumulate(np.flip(up)))
        height = np.interp(_RECALLS, across, up)
        areas[column] = ((height[1:] + height[:-1]) / 2 * np.diff(_RECALLS)).sum()
    return areas
