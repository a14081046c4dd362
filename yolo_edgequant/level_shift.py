"""How the class logits of a level of the grid differ between a float model and its INT8 model.

Where a layer's range clips what objects excite most, their logits come out lower, and those of one level more than
those of another. The median difference over the cells with an object says by how much.

An object counts by the mean of its two scores: of those that the float model alone finds surest, some are so by chance,
and the INT8 model's would be lower even if nothing were shifted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from .decoding.in_numpy import sigmoid
from .int8 import CANDIDATE_LOGIT
from .log import LOGGER

_SURE = 0.1  # mean score of a cell that counts
_ENOUGH = 8  # images with such a cell
_DRAWS = 200
_ERRORS = 2  # standard errors from which a shift is taken to be one
_MOST = 2.0  # logits; beyond is no shift but a collapse, which is for the self-check to see
_LOW = -20.0  # a logit of no score
_COMPARED = 64  # images: the error falls with more of them, and the time rises


@dataclass(frozen=True)
class Shift:
    """How the logits of a level differ, INT8 less float.

    Attributes:
        median: over the cells that count.
        error: its standard error, by bootstrap over the images.
        images: with a cell that counts.
    """

    median: float
    error: float
    images: int

    @classmethod
    def of(cls, differences: Sequence[np.ndarray]) -> Shift:
        """The shift from the differences of each image, (N,) each and perhaps empty."""
        images = [image for image in differences if image.size]
        if not images:
            return cls(0.0, np.inf, 0)
        random = np.random.default_rng(0)
        drawn = (random.integers(0, len(images), len(images)) for _ in range(_DRAWS))
        medians = [np.median(np.concatenate([images[index] for index in draw])) for draw in drawn]
        return cls(float(np.median(np.concatenate(images))), float(np.std(medians)), len(images))

    @property
    def systematic(self) -> bool:
        """True if chance does not explain it, and it is small enough to be one."""
        return self.images >= _ENOUGH and _ERRORS * self.error < abs(self.median) <= _MOST


@dataclass
class CandidateLogits:
    """The class logits of a level's cells with a score over 0.01 in any class, image by image; the others are low."""

    _images: list[tuple[tuple[int, int], np.ndarray, np.ndarray]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, number: int) -> np.ndarray:
        """(cells, nc) float32 of an image, or a batch of images: -20 in the cells that are no candidates."""
        shape, cells, logits = self._images[number]
        rows = np.full(shape, _LOW, np.float32)
        rows[cells] = logits
        return rows

    def update(self, values: np.ndarray) -> None:
        """Add those of a map (B, rows, columns, nc), or of another arrangement with the classes last."""
        rows = values.reshape(-1, values.shape[-1])
        cells = np.flatnonzero(rows.max(1) > CANDIDATE_LOGIT)
        self._images.append((rows.shape, cells, rows[cells]))


def to_compare(count: int) -> list[int]:
    """The numbers of the images to measure a shift on, of so many: spread evenly, 64 at most."""
    return np.linspace(0, count - 1, min(count, _COMPARED)).astype(int).tolist()


def of_objects(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """How much higher the second logit is in the cells that count, each by its class with the highest two.

    Args:
        one, other: logits of the same cells, (N, nc).

    Returns:
        (M,) of the M cells that count.
    """
    row = np.arange(len(one)), (one + other).argmax(1)
    counts = sigmoid(one[row]) + sigmoid(other[row]) > 2 * _SURE
    return (other[row] - one[row])[counts]


def measure(
    run: Callable[[np.ndarray], Iterable[np.ndarray]],
    before: Sequence[CandidateLogits],
    images: Sequence[np.ndarray],
) -> list[Shift]:
    """How the logits of each level differ from the float model's.

    Args:
        run: the INT8 model: from an image to the logits of each level, the classes last.
        before: the float model's in these images, level by level.
        images: by number; some are run.
    """
    differences: list[list[np.ndarray]] = [[] for _ in before]
    for number in to_compare(len(images)):
        for own, kept, values in zip(differences, before, run(images[number]), strict=True):
            one = kept[number]
            own.append(of_objects(one, values.reshape(one.shape)))
    return [Shift.of(own) for own in differences]


def changes(shifts: Sequence[Shift]) -> dict[int, float]:
    """What to add to the logits of levels, by number, so that no shift is left that is systematic; the log says it."""
    added = {level: -shift.median for level, shift in enumerate(shifts) if shift.systematic}
    if added:
        said = ", ".join(f"{change:+.2f} of level {level + 1} of {len(shifts)}" for level, change in added.items())
        LOGGER.info("scores aligned: logits %s", said)
    return added
