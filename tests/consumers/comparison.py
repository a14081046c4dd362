"""What a program finds with a file, beside what `YOLO(file).predict` finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

OVERLAP, SCORE = 0.99, 0.01  # an object is the same with an IoU over the one and a score within the other
MASKS = 0.7  # mean IoU of masks: the programs crop and scale them in their own ways, and small ones differ much


@dataclass(frozen=True)
class Objects:
    """The objects in an image, in its pixels.

    Attributes:
        boxes: (N, 4) x1, y1, x2, y2, clipped to the image; of rotated ones (N, 5) center, width, height, radians.
        scores: (N,).
        classes: (N,) int.
        masks: (N, H, W) bool, of the image's size or another.
        keypoints: (N, K, 2).
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    masks: np.ndarray | None = None
    keypoints: np.ndarray | None = None

    @classmethod
    def read(cls, row: dict[str, Any], size: tuple[int, int]) -> Objects:
        """What a program has written for an image of `size` (height, width)."""
        boxes = np.array(row["boxes"], np.float32)
        boxes = boxes.reshape(len(boxes), -1) if len(boxes) else np.empty((0, 4), np.float32)
        if boxes.shape[1] == 4:
            boxes = boxes.clip(0, np.array([size[1], size[0]] * 2, np.float32))
        masks = np.load(row["masks"])["masks"] if row.get("masks") else None
        points = np.array(row["keypoints"], np.float32) if row.get("keypoints") else None
        return cls(boxes, np.array(row["scores"], np.float32), np.array(row["classes"], np.int64), masks, points)

    def __len__(self) -> int:
        return len(self.scores)


@dataclass
class Agreement:
    """How a program's objects and those of `predict` compare, over all images.

    Attributes:
        reference: objects that `predict` finds.
        found: that the program finds.
        same: of those that it finds, the ones that `predict` finds, too: IoU over 0.99, score within 0.01, same class.
        kept: others that are candidates of the file, which `predict`'s NMS suppressed and the program's did not.
        wrong: the rest.
        lost: of `predict`'s, the ones that the program has not.
        overlap, score: the least IoU, and the largest difference of a score, of same and kept.
        masks: the IoU of each mask; empty without.
        keypoints: the largest distance of keypoints in pixels; None without.
        reason: how a wrong one differs, for the first.
    """

    reference: int = 0
    found: int = 0
    same: int = 0
    kept: int = 0
    wrong: int = 0
    lost: int = 0
    overlap: float = 1.0
    score: float = 0.0
    masks: list[float] = field(default_factory=list)
    keypoints: float | None = None
    reason: str = field(default="")

    def accepted(self, own_nms: bool) -> bool:
        """True if nothing is wrong, and, but for a program with a suppression of its own, nothing is lost or more."""
        alike = not self.masks or float(np.mean(self.masks)) >= MASKS
        return bool(self.found) and not self.wrong and alike and (own_nms or not (self.lost or self.kept))


def compare(
    found: Sequence[Objects],
    reference: Sequence[Objects],
    candidates: Sequence[Objects],
    conf: float,
    overlap: float = OVERLAP,
    score: float = SCORE,
    pixels: float = 0.0,
) -> Agreement:
    """Compare what a program found with what `predict` found, image by image.

    Args:
        found: by the program.
        reference: by `predict`, with the program's threshold.
        candidates: by `predict` without NMS, and with a lower threshold: an object at the threshold is no difference.
        conf: the program's threshold.
        overlap, score: an object is the same with an IoU of at least the one and a score within the other.
        pixels: sides within this are the same whatever the IoU: for programs that give whole pixels.
    """
    within = (overlap, score, pixels)
    total = Agreement(reference=sum(map(len, reference)), found=sum(map(len, found)))
    for ours, theirs, all_of_file in zip(found, reference, candidates, strict=True):
        pairs = _pairs(ours, theirs, within)
        total.same += len(pairs)
        for i, j in pairs:
            _note(total, ours, theirs, i, j)
        rest = sorted(set(range(len(ours))) - {i for i, _ in pairs})
        for i in rest:
            j = _nearest(ours, all_of_file, i, within)
            if j is None:
                total.wrong += 1
                total.reason = total.reason or _reason(ours, all_of_file, i)
            elif all_of_file.scores[j] < conf + score:  # at the threshold
                total.same += 1
            else:
                total.kept += 1
                _note(total, ours, all_of_file, i, j)
        have = {j for _, j in pairs}
        total.lost += sum(j not in have and bool(theirs.scores[j] > conf + score) for j in range(len(theirs)))
    return total


def overlaps(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(N, M) overlap of upright (N, 4) and (M, 4), or rotated (N, 5) and (M, 5) boxes."""
    from yolo_edgequant.runtime.nms import overlaps

    return np.nan_to_num(overlaps(one.astype(np.float32), other.astype(np.float32)))


def _pairs(ours: Objects, theirs: Objects, within: tuple[float, float, float]) -> list[tuple[int, int]]:
    """Each object with its own counterpart, the best overlaps first."""
    if not len(ours) or not len(theirs):
        return []
    table = overlaps(ours.boxes, theirs.boxes)
    table[~_alike(ours, theirs, table, within)] = -1
    pairs = []
    while table.size and table.max() >= 0:
        i, j = np.unravel_index(table.argmax(), table.shape)
        pairs.append((int(i), int(j)))
        table[i], table[:, j] = -1, -1
    return pairs


def _alike(ours: Objects, theirs: Objects, table: np.ndarray, within: tuple[float, float, float]) -> np.ndarray:
    """(N, M): which two could be the same object."""
    overlap, score, pixels = within
    apart = np.abs(ours.boxes[:, None] - theirs.boxes).max(2)
    same_class = ours.classes[:, None] == theirs.classes
    near = (table >= overlap) | (apart <= pixels)
    return near & same_class & (np.abs(ours.scores[:, None] - theirs.scores) <= score)


def _nearest(ours: Objects, theirs: Objects, i: int, within: tuple[float, float, float]) -> int | None:
    if not len(theirs):
        return None
    table = overlaps(ours.boxes, theirs.boxes)
    table[~_alike(ours, theirs, table, within)] = -1
    j = int(table[i].argmax())
    return j if table[i, j] >= 0 else None


def _note(total: Agreement, ours: Objects, theirs: Objects, i: int, j: int) -> None:
    total.overlap = min(total.overlap, float(overlaps(ours.boxes[i : i + 1], theirs.boxes[j : j + 1])[0, 0]))
    total.score = max(total.score, float(abs(ours.scores[i] - theirs.scores[j])))
    if ours.masks is not None and theirs.masks is not None:
        one, two = ours.masks[i], theirs.masks[j]
        shared = (one & two).sum() / max((one | two).sum(), 1)
        total.masks.append(float(shared))
    if ours.keypoints is not None and theirs.keypoints is not None:
        apart = np.linalg.norm(ours.keypoints[i] - theirs.keypoints[j], axis=1).max()
        total.keypoints = max(total.keypoints or 0.0, float(apart))


def _reason(ours: Objects, theirs: Objects, i: int) -> str:
    if not len(theirs):
        return "there is no candidate in the image"
    table = overlaps(ours.boxes, theirs.boxes)[i]
    j = int(np.lexsort((-np.abs(theirs.scores - ours.scores[i]), table))[-1])
    return (
        f"IoU {table[j]:.3f} with the nearest candidate, score {ours.scores[i]:.3f} for {theirs.scores[j]:.3f}, class "
        f"{ours.classes[i]} for {theirs.classes[j]}"
    )
