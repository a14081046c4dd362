"""Draw what was found. Needs OpenCV, which nothing else in the runtime does."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np

from .detections import Detections, rectangle


def annotate(image: np.ndarray, detections: Detections) -> np.ndarray:
    """A copy of an image, (H, W, 3) uint8 BGR, with the objects' boxes, names, scores, masks and keypoints."""
    picture = image.copy()
    thickness = max(1, round(max(image.shape[:2]) / 400))
    scale = max(0.35, max(image.shape[:2]) / 1200)
    corners = None if detections.rotated is None else rectangle(detections.rotated)
    for i in reversed(range(len(detections))):  # the best on top
        colour = _colour(int(detections.classes[i]))
        if detections.masks is not None:
            mask = detections.masks[i]
            picture[mask] = picture[mask] // 2 + np.array(colour, np.uint8) // 2
        x1, y1, x2, y2 = (round(float(v)) for v in detections.boxes[i])
        if corners is not None:
            cv2.polylines(picture, [corners[i].round().astype(np.int32)], True, colour, thickness, cv2.LINE_AA)
        else:
            cv2.rectangle(picture, (x1, y1), (x2, y2), colour, thickness)
        if detections.keypoints is not None:
            for x, y, *visibility in detections.keypoints[i]:
                if not visibility or visibility[0] > 0.5:
                    cv2.circle(picture, (round(float(x)), round(float(y))), thickness + 1, colour, -1, cv2.LINE_AA)
        text = f"{detections.names[int(detections.classes[i])]} {detections.scores[i]:.2f}"
        (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
        top = max(y1, height + below)
        cv2.rectangle(picture, (x1, top - height - below), (x1 + width, top), colour, -1)
        cv2.putText(
            picture,
            text,
            (x1, top - below // 2),
            cv2.FONT_HERSHEY_SIMPLEX,
            scale,
            (255, 255, 255),
            thickness,
            cv2.LINE_AA,
        )
    return picture


def _colour(index: int) -> tuple[int, int, int]:
    """BGR of a class: hues a golden angle apart, so that neighbours differ."""
    red, green, blue = colorsys.hsv_to_rgb(index * 0.618034 % 1, 0.85, 0.8)
    return round(blue * 255), round(green * 255), round(red * 255)
