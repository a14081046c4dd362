"""How far chance goes in a figure that some images gave: its standard error, by bootstrap over the images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from ..upstream.image_statistics import ImageStatistics
from .average_precision import mean_average_precision

#: Draws of as many images as there are, with replacement; 200 give a standard error to within 5 %.
DRAWS = 200


@dataclass(frozen=True)
class Estimate:
    """A figure of some images, and the standard error with which it stands for all images of their kind."""

    value: float
    error: float


class Resampled:
    """mAP50-95 of models on the same images, on these as they are and on the same random draws of them for all models.

    Args:
        reference: what the float model found.
        draws: how many, 2 or more.
        seed: of the draws.

    Raises:
        DataError: there are no images, or the float model's mAP is 0.
    """

    def __init__(self, reference: ImageStatistics, draws: int = DRAWS, seed: int = 0) -> None:
        self._files = reference.files
        count = len(self._files)
        if not count:
            raise DataError("a standard error needs images, and none was validated")
        chance = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), draws)
        self._draws = np.concatenate((np.ones((1, count), int), chance))  # the images as they are come first
        self._reference = self.maps(reference)
        if not self._reference[0]:
            raise DataError("the float model's mAP50-95 is 0 on these images, so no share of it is kept")

    def maps(self, statistics: ImageStatistics) -> np.ndarray:
        """(1 + draws,) mAP50-95 of a model, 0 to 1, the images as they are first.

        Raises:
            DataError: it was validated on other images.
        """
        if not np.array_equal(statistics.files, self._files):
            raise DataError(
                f"the models were validated on different images: {len(self._files)} from '{self._files[0]}' on, and "
                f"{len(statistics.files)}"
            )
        return mean_average_precision(statistics, self._draws)

    def retention(self, maps: np.ndarray) -> Estimate:
        """The share of the float model's mAP that a model keeps.

        Args:
            maps: of the model, from :meth:`maps`.
        """
        return self._share(maps)

    def difference(self, maps: np.ndarray, other: np.ndarray) -> Estimate:
        """How much more a model keeps than another: the difference of their retentions.

        Args:
            maps, other: of the two models, from :meth:`maps`.
        """
        return self._share(maps - other)

    def _share(self, values: np.ndarray) -> Estimate:
        alive = self._reference > 0
        shares = values[alive] / self._reference[alive]
        return Estimate(float(shares[0]), float(shares[1:].std(ddof=1)))


def retention(reference: ImageStatistics, quantized: ImageStatistics, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """The share of a float model's mAP50-95 that an INT8 model keeps on the same images, with its standard error.

    Args:
        reference, quantized: what the two models found.
        draws, seed: of the bootstrap.

    Raises:
        DataError: the images are others, or there are none, or the float model's mAP is 0.
    """
    resampled = Resampled(reference, draws, seed)
    return resampled.retention(resampled.maps(quantized))
