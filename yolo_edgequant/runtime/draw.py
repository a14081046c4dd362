"""Draw what was found. Needs OpenCV, which nothing else in the runtime does."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np

from .detections import Detections, rectangle


def draw(image: np.ndarray, found: Detections) -> np.ndarray:
    """A copy of an image, (H, W, 3) uint8 BGR, with the objects' boxes, names, scores, masks and keypoints."""
    made = image.copy()
    thickness = max(1, round(max(image.shape[:2]) / 400))
    scale = max(0.35, max(image.shape[:2]) / 1200)
    corners = None if found.rotated is None else rectangle(found.rotated)
    for i in reversed(range(len(found))):  # the best on top
        colour = _colour(int(found.classes[i]))
        if found.masks is not None:
            mask = found.masks[i]
            made[mask] = made[mask] // 2 + np.array(colour, np.uint8) // 2
        x1, y1, x2, y2 = (round(float(v)) for v in found.boxes[i])
        if corners is not None:
            cv2.polylines(made, [corners[i].round().astype(np.int32)], True, colour, thickness, cv2.LINE_AA)
        else:
            cv2.rectangle(made, (x1, y1), (x2, y2), colour, thickness)
        if found.keypoints is not None:
            for x, y, *visibility in found.keypoints[i]:
                if not visibility or visibility[0] > 0.5:
                    cv2.circle(made, (round(float(x)), round(float(y))), thickness + 1, colour, -1, cv2.LINE_AA)
        text = f"{found.names[int(found.classes[i])]} {found.scores[i]:.2f}"
        (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
        top = max(y1, height + below)
        cv2.rectangle(made, (x1, top - height - below), (x1 + width, top), colour, -1)
        cv2.putText(
            made, text, (x1, top - below // 2), cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), thickness, cv2.LINE_AA
        )
    return made


def _colour(index: int) -> tuple[int, int, int]:
    """BGR of a class: hues a golden angle apart, so that neighbours differ."""
    red, green, blue = colorsys.hsv_to_rgb(index * 0.618034 % 1, 0.85, 0.8)
    return round(blue * 255), round(green * 255), round(red * 255)
