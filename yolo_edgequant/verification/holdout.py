"""Images that are kept from calibration, to check its result on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np

_MOST = 16
_SHARE = 8  # one image in as many


class Holdout(Sequence[np.ndarray]):
    """A calibration set without a few images spread evenly over it, which it gathers while it is iterated over.

    Args:
        images: the whole set; if it can be iterated over again, or gives an image by its number, so does this.
        count: of images in it.
        also_calibrate: let calibration have these images all the same; the check is then not on unseen ones.
    """

    def __init__(self, images: Iterable[np.ndarray], count: int, also_calibrate: bool = False) -> None:
        held = min(_MOST, count // _SHARE)
        self._all, self._count, self._also_calibrate = images, count, also_calibrate
        self._indices = {int((k + 0.5) * count / held) for k in range(held)}
        self._held: dict[int, np.ndarray] = {}

    @property
    def images(self) -> Sequence[np.ndarray]:
        """Those held back, in order, complete after one iteration: one in eight, 16 at most."""
        return _Unpacked([self._held[index] for index in sorted(self._held)])

    def __iter__(self) -> Iterator[np.ndarray]:
        for index, image in enumerate(self._all):
            if index in self._indices:
                self._held.setdefault(index, _packed(image))
            if self._also_calibrate or index not in self._indices:
                yield image

    def __len__(self) -> int:
        return self._count - (0 if self._also_calibrate else len(self._indices))

    def __getitem__(self, index: int) -> np.ndarray:
        used = (n for n in range(self._count) if self._also_calibrate or n not in self._indices)
        return self._all[next(islice(used, index, None))]


class _Unpacked(Sequence[np.ndarray]):
    """The images of some arrays of :func:`_packed`, each unpacked when it is asked for."""

    def __init__(self, packed: list[np.ndarray]) -> None:
        self._packed = packed

    def __getitem__(self, index: int) -> np.ndarray:
        return _unpacked(self._packed[index])

    def __len__(self) -> int:
        return len(self._packed)


def _packed(image: np.ndarray) -> np.ndarray:
    """An image from 0 to 1 in a quarter of its memory, if all its values are those of 8-bit pixels; else a copy."""
    pixels = np.rint(image * 255).clip(0, 255).astype(np.uint8)
    return pixels if np.array_equal(_unpacked(pixels), image) else np.array(image)


def _unpacked(packed: np.ndarray) -> np.ndarray:
    return packed.astype(np.float32) / 255 if packed.dtype == np.uint8 else packed
