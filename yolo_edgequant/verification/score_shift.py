"""Whether the scores of an INT8 model still mean what the float model's do, for those who keep their threshold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..runtime.nms import overlaps
from ..upstream.image_statistics import ImageStatistics

_THRESHOLDS = np.linspace(0, 1, 1001)
_SMOOTHED = 101  # thresholds that the best one is chosen over, a tenth of all as in Ultralytics
_SURE = 0.25  # score of an object that counts, Ultralytics' usual threshold
_OVERLAP = 0.7


@dataclass(frozen=True)
class ScoreShift:
    """How scores differ. F1 is the mean over the classes, at an overlap of 0.5.

    Attributes:
        threshold: of scores, where the float model's F1 is best.
        f1_float, f1: of the float and the INT8 model at that threshold, 0 to 1.
        threshold_shift: how much higher the INT8 model's best threshold is.
        score_change: mean change of the score of an object that both models found and whose mean score in both is 0.25
            or more; None if there is none. Of those that the float model alone is sure of, some are so by chance, and
            would lose by any noise.
        matched: share of the float model's objects with a score of 0.25 or more that the INT8 model found, too, with
            whatever score; None if there is none.
    """

    threshold: float
    f1_float: float
    f1: float
    threshold_shift: float
    score_change: float | None
    matched: float | None


def score_shift(reference: ImageStatistics, quantized: ImageStatistics) -> ScoreShift:
    """Compare the scores of an INT8 model with the float model's on the same images."""
    curves = [f1_curve(statistics) for statistics in (reference, quantized)]
    best, other = (int(_smooth(curve).argmax()) for curve in curves)
    pairs, objects = _pairs(reference, quantized), int((reference.scores >= _SURE).sum())
    changes = np.diff(pairs[pairs.mean(1) >= _SURE])
    return ScoreShift(
        float(_THRESHOLDS[best]),
        float(curves[0][best]),
        float(curves[1][best]),
        float(_THRESHOLDS[other] - _THRESHOLDS[best]),
        float(changes.mean()) if len(changes) else None,
        float((pairs[:, 0] >= _SURE).sum() / objects) if objects else None,
    )


def f1_curve(statistics: ImageStatistics) -> np.ndarray:
    """(1001,) F1 at the thresholds 0, 0.001, ... 1: the mean over the classes that have a label; 0 without any."""
    curves = []
    for number in np.unique(statistics.label_classes):
        own = statistics.classes == number
        hits = own & statistics.hits[:, 0]
        detected, right = (_over(statistics.scores[which]) for which in (own, hits))
        curves.append(2 * right / (detected + (statistics.label_classes == number).sum()))
    return np.mean(curves, 0) if curves else np.zeros(len(_THRESHOLDS))


def _over(scores: np.ndarray) -> np.ndarray:
    """How many scores are at each threshold or over it."""
    return len(scores) - np.searchsorted(np.sort(scores), _THRESHOLDS, side="left")


def _smooth(curve: np.ndarray) -> np.ndarray:
    """Means over neighboring thresholds, so that chance does not choose the best one."""
    padded = np.pad(curve, _SMOOTHED // 2, mode="edge")
    return np.convolve(padded, np.full(_SMOOTHED, 1 / _SMOOTHED), mode="valid")


def _pairs(reference: ImageStatistics, quantized: ImageStatistics) -> np.ndarray:
    """(N, 2) scores of each object in both models, of all that both found.

    The surest first, each takes the best overlapping one of its class that is left.
    """
    pairs: list[tuple[float, float]] = []
    for image in np.unique(reference.image):
        objects, others = (np.flatnonzero(of.image == image) for of in (reference, quantized))
        objects = objects[np.argsort(-reference.scores[objects], kind="stable")]
        shared = np.nan_to_num(overlaps(reference.boxes[objects], quantized.boxes[others]))
        shared[reference.classes[objects][:, None] != quantized.classes[others]] = 0
        for row, item in zip(shared, objects, strict=True):
            column = int(row.argmax()) if len(row) else -1
            if len(row) and row[column] >= _OVERLAP:
                pairs.append((float(reference.scores[item]), float(quantized.scores[others[column]])))
                shared[:, column] = 0
    return np.array(pairs).reshape(-1, 2)
