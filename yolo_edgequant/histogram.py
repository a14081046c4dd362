"""Distribution of values over a pass, in constant memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

_BINS = 4096  # over [-limit, limit): a 256th of the used part of the range, or finer, always spans several bins


@dataclass
class Histogram:
    """Counts over ``[-limit, limit)`` in equal bins; the limit is a power of two and doubles when it is too small.

    Doubling merges neighbouring bins exactly, so the result does not depend on the order of the images; that of
    ai-edge-quantizer's ``DynamicHistogram`` does, and its bins are not centred on 0.
    """

    limit: float = 2.0**-6
    counts: np.ndarray = field(default_factory=lambda: np.zeros(_BINS))

    def add(self, values: np.ndarray, largest: float, weight: float = 1.0) -> None:
        """Count `values`, a flat float32 array with absolute values up to `largest`, each as much as `weight`."""
        while largest >= self.limit:
            merged = self.counts.reshape(-1, 2).sum(1)
            quarter = _BINS // 4
            self.counts = np.pad(merged, (quarter, quarter))
            self.limit *= 2
        bins = (values * np.float32(_BINS / 2 / self.limit) + np.float32(_BINS / 2)).astype(np.int32)
        self.counts += weight * np.bincount(bins, minlength=_BINS)[:_BINS]

    def occupied(self) -> tuple[np.ndarray, np.ndarray]:
        """Centres and counts (float64) of the bins that are not empty, in ascending order."""
        used = np.flatnonzero(self.counts)
        return (used + 0.5) * (2 * self.limit / _BINS) - self.limit, self.counts[used]
