"""What a detector found in one image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Detections:
    """The objects in one image, the best first. All places are in pixels of that image.

    Attributes:
        boxes: (N, 4) float32, corners x1, y1, x2, y2; of a rotated box the upright box around it.
        scores: (N,) float32, 0 to 1.
        classes: (N,) int64.
        names: of the model's classes.
        rotated: (N, 5) float32, centre x, centre y, width, height and angle in radians; None for other tasks than obb.
        keypoints: (N, K, 2 or 3) float32, x, y and perhaps a visibility from 0 to 1; None for other tasks than pose.
        masks: (N, H, W) bool; None for other tasks than segment.
        milliseconds: time taken: ``letterbox``, ``inference`` and ``decoding`` (with NMS and masks).
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    names: Mapping[int, str]
    rotated: np.ndarray | None
    keypoints: np.ndarray | None
    masks: np.ndarray | None
    milliseconds: Mapping[str, float]

    def __len__(self) -> int:
        return len(self.scores)

    def as_dicts(self) -> list[dict[str, Any]]:
        """Each object as plain values for JSON; masks are left out."""
        rows = []
        for i in range(len(self)):
            row = {
                "name": self.names[int(self.classes[i])],
                "class": int(self.classes[i]),
                "score": round(float(self.scores[i]), 5),
                "box": self.boxes[i].round(2).tolist(),
            }
            if self.rotated is not None:
                row["rotated"] = self.rotated[i].round(4).tolist()
            if self.keypoints is not None:
                row["keypoints"] = self.keypoints[i].round(3).tolist()
            rows.append(row)
        return rows


def rectangle(rotated: np.ndarray) -> np.ndarray:
    """(N, 4, 2) float32, the corners in turn of (N, 5) rotated boxes."""
    centre, extent, angle = rotated[:, None, :2], rotated[:, 2:4] / 2, rotated[:, 4]
    along = np.stack((np.cos(angle), np.sin(angle)), 1) * extent[:, :1]
    across = np.stack((-np.sin(angle), np.cos(angle)), 1) * extent[:, 1:]
    return centre + np.stack((along + across, along - across, -along - across, across - along), 1)
