"""mAP50-95 over many choices of the images at once: an image that is drawn twice counts twice."""

from __future__ import annotations

import numpy as np

from ..upstream.image_statistics import ImageStatistics

_RECALLS = np.linspace(0, 1, 101)  # where COCO and Ultralytics look at precision


def mean_average_precision(statistics: ImageStatistics, draws: np.ndarray) -> np.ndarray:
    """(R,) mAP50-95, 0 to 1, of R draws: the mean over the overlaps and the classes that have a label in the draw.

    Each image once gives Ultralytics' mAP. An image that was drawn more often takes one step of the curve for each of
    its detections, weighed by how often, where Ultralytics takes several: mAP differs by less than 0.001. Equal scores
    count in the order of the images. Ultralytics leaves it open, and an INT8 file has few scores: 661 among 186,000.

    Args:
        statistics: of I images.
        draws: (R, I) how often each image was drawn.
    """
    order = np.argsort(-statistics.scores, kind="stable")
    image, hits, classes = (values[order] for values in (statistics.image, statistics.hits, statistics.classes))
    total, counted = np.zeros(len(draws)), np.zeros(len(draws), int)
    for number in np.unique(statistics.label_classes):
        labels = draws[:, statistics.label_image[statistics.label_classes == number]].sum(1)
        own = classes == number
        ranked = draws[:, image[own]].cumsum(1)
        for overlap in hits[own].T:
            positions = np.flatnonzero(overlap)
            total += _area(draws[:, image[own][positions]], ranked[:, positions], labels) / hits.shape[1]
        counted += labels > 0
    return np.divide(total, counted, out=np.zeros(len(draws)), where=counted > 0)


def _area(drawn: np.ndarray, ranked: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(R,) areas under a class's curves of precision over recall, at one overlap; 0 without a label or a hit.

    Between two hits precision only falls, so each hit needs two points of the curve: before it, and at it.

    Args:
        drawn: (R, H) how often the image of each of H hits was drawn, the best first.
        ranked: (R, H) detections drawn up to and with each hit.
        labels: (R,) of the class.
    """
    rows, count = drawn.shape
    if not count:
        return np.zeros(rows)
    right = drawn.cumsum(1)
    hits = np.stack((right - drawn, right), 2).reshape(rows, -1)
    all_ranked = np.stack((ranked - drawn, ranked), 2).reshape(rows, -1)
    precision = np.divide(hits, all_ranked, out=np.ones(hits.shape), where=all_ranked > 0)
    recall = hits / np.maximum(labels, 1)[:, None]
    recall = np.concatenate((np.zeros((rows, 1)), recall, recall[:, -1:], np.ones((rows, 1))), 1)
    precision = np.concatenate((np.ones((rows, 1)), precision, np.zeros((rows, 2))), 1)
    precision = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    sampled = _interpolate(recall, precision)
    return (labels > 0) * (sampled.sum(1) - (sampled[:, 0] + sampled[:, -1]) / 2) / (len(_RECALLS) - 1)


def _interpolate(recall: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """(R, 101) precisions at :data:`_RECALLS`, as ``np.interp`` does row by row; recalls rise from 0 to 1."""
    rows, points = recall.shape
    offset = 2.0 * np.arange(rows)[:, None]  # all rows as one that rises
    places = np.searchsorted((recall + offset).ravel(), (_RECALLS + offset).ravel(), side="right").reshape(rows, -1)
    left = np.clip(places - 1 - np.arange(rows)[:, None] * points, 0, points - 2)
    (x, x_next), (y, y_next) = (
        (np.take_along_axis(v, left, 1), np.take_along_axis(v, left + 1, 1)) for v in (recall, precision)
    )
    share = np.divide(_RECALLS - x, x_next - x, out=np.ones(x.shape), where=x_next > x)
    return y + share * (y_next - y)
