"""Images that are kept from calibration, to check its result on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

_MOST = 16
_SHARE = 8  # one image in as many


class Holdout:
    """A calibration set without a few images spread evenly over it, which it gathers while it is iterated over.

    Args:
        images: the whole set; may be iterated over several times if this is.
        count: of images in it.
        also_calibrate: let calibration have these images all the same; the check is then not on unseen ones.
    """

    def __init__(self, images: Iterable[np.ndarray], count: int, also_calibrate: bool = False) -> None:
        held = min(_MOST, count // _SHARE)
        self._all, self._count, self._also_calibrate = images, count, also_calibrate
        self._indices = {int((k + 0.5) * count / held) for k in range(held)}
        self._held: dict[int, np.ndarray] = {}

    @property
    def images(self) -> list[np.ndarray]:
        """Those held back, in order, complete after one iteration: one in eight, 16 at most."""
        return [self._held[index] for index in sorted(self._held)]

    def __iter__(self) -> Iterator[np.ndarray]:
        for index, image in enumerate(self._all):
            if index in self._indices:
                self._held.setdefault(index, np.array(image))
            if self._also_calibrate or index not in self._indices:
                yield image

    def __len__(self) -> int:
        return self._count - (0 if self._also_calibrate else len(self._indices))
