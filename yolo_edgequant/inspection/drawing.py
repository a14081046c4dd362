"""Reads pictures, and draws the objects that a file shows in them. Needs OpenCV."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from ..runtime.annotate import annotate
from ..runtime.detections import Detections
from ..runtime.sources import images

_SIDE = 480  # pixels of a drawn picture, at most


def read(source: Path, count: int) -> list[tuple[str, np.ndarray]]:
    """The first pictures of a folder, or of a file: name, and (H, W, 3) uint8 BGR.

    Raises:
        InferenceError: there are none, or one cannot be read.
    """
    return list(islice(images(str(source)), count))


def drawn(picture: np.ndarray, objects: Detections) -> bytes:
    """The picture as JPEG, of at most 480 pixels, with the objects in it."""
    image = annotate(picture, objects)
    ratio = min(1.0, _SIDE / max(image.shape[:2]))
    if ratio < 1:
        image = cv2.resize(image, None, fx=ratio, fy=ratio, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 80])
    return encoded.tobytes()
