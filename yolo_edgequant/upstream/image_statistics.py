"""What validation found in each image, as arrays, so that figures can be taken over other choices of the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class ImageStatistics:
    """The detections of a model in I images, N in all, and the images' M labels.

    Attributes:
        files: (I,) names of the images.
        image: (N,) position in `files` of each detection's image.
        hits: (N, 10) bool, whether a detection is right at the overlaps 0.5, 0.55, ... 0.95; of masks or keypoints for
            the tasks that have them.
        scores: (N,) 0 to 1.
        classes: (N,) of the detections.
        boxes: (N, 4) left, top, right, bottom, or (N, 5) center, size and angle; pixels of the model's input.
        label_image: (M,) position in `files` of each label's image.
        label_classes: (M,) of the labels.
    """

    files: np.ndarray
    image: np.ndarray
    hits: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray
    label_image: np.ndarray
    label_classes: np.ndarray

    def save(self, path: Path) -> None:
        """Write a NumPy archive."""
        np.savez_compressed(path, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path) -> ImageStatistics:
        """Read what :meth:`save` wrote."""
        with np.load(path) as arrays:
            return cls(**{field.name: arrays[field.name] for field in fields(cls)})

    def only(self, images: Sequence[int] | np.ndarray) -> ImageStatistics:
        """Those of some images, each named once, by their positions."""
        position = np.full(len(self.files), -1)
        position[images] = np.arange(len(images))
        kept, labels = position[self.image] >= 0, position[self.label_image] >= 0
        return ImageStatistics(
            self.files[images],
            position[self.image[kept]],
            *(values[kept] for values in (self.hits, self.scores, self.classes, self.boxes)),
            position[self.label_image[labels]],
            self.label_classes[labels],
        )


def joined(files: Sequence[str], images: Sequence[dict[str, np.ndarray]]) -> ImageStatistics:
    """The statistics of images that come one by one.

    Args:
        files: names of the images.
        images: of each ``hits``, ``scores``, ``classes``, ``boxes`` and ``label_classes``.
    """
    counts, labels = ([len(image[key]) for image in images] for key in ("scores", "label_classes"))
    width = max((image["boxes"].shape[-1] for image in images), default=4)
    empty = {"hits": np.zeros((0, 10), bool), "boxes": np.zeros((0, width), np.float32)}

    def all_of(key: str) -> np.ndarray:
        parts = [image[key] for image in images if len(image[key])]
        return np.concatenate(parts) if parts else empty.get(key, np.zeros(0))

    numbers = np.arange(len(images))
    return ImageStatistics(
        np.array(files),
        np.repeat(numbers, counts),
        all_of("hits").astype(bool),
        all_of("scores"),
        all_of("classes").astype(int),
        all_of("boxes"),
        np.repeat(numbers, labels),
        all_of("label_classes").astype(int),
    )
