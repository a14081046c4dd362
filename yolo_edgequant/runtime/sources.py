"""Images from a file, a folder, a video or a camera. Needs OpenCV."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from ..errors import InferenceError

IMAGES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


def is_video(source: str) -> bool:
    """True for a camera's number and for a file that is no image."""
    return source.isdecimal() or (Path(source).is_file() and Path(source).suffix.lower() not in IMAGES)


def count(source: str) -> int | None:
    """How many images there are, None if that is not known."""
    if is_video(source):
        return None
    return len(_files(Path(source)))


def images(source: str) -> Iterator[tuple[str, np.ndarray]]:
    """A name and the picture, (H, W, 3) uint8 BGR, of each image.

    Args:
        source: an image file, a folder of such, a video file, or a camera's number.

    Raises:
        InferenceError: there is nothing of the kind, or it cannot be read.
    """
    if not is_video(source):
        for file in _files(Path(source)):
            image = cv2.imread(str(file))
            if image is None:
                raise InferenceError(f"'{file}' is not an image that OpenCV can read")
            yield file.name, image
        return
    capture = cv2.VideoCapture(int(source) if source.isdecimal() else source)
    try:
        number = 0
        while True:
            good, frame = capture.read()
            if not good:
                break
            yield f"{number:06d}", frame
            number += 1
        if number == 0:
            raise InferenceError(f"no picture came from {'camera ' if source.isdecimal() else ''}'{source}'")
    finally:
        capture.release()


def _files(path: Path) -> list[Path]:
    """The image files that a path means.

    Raises:
        InferenceError: there are none.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGES)
    else:
        files = [path] if path.is_file() else []
    if not files:
        raise InferenceError(f"no image at '{path}' (looked in {Path.cwd()}; {', '.join(sorted(IMAGES))})")
    return files
