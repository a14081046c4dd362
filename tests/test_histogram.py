import numpy as np
import pytest

from yolo_edgequant.histogram import Histogram


def test_histogram_counts_all_and_does_not_depend_on_the_order():
    random = np.random.default_rng(0)
    parts = [random.normal(0, s, 1000).astype(np.float32) for s in (0.01, 5, 80)]
    one, other = Histogram(), Histogram()
    for part in parts:
        one.add(part, float(np.abs(part).max()))
    for part in parts[::-1]:
        other.add(part, float(np.abs(part).max()))
    assert one.limit == other.limit == 2 ** np.ceil(np.log2(max(np.abs(part).max() for part in parts)))
    assert one.counts.sum() == 3000
    assert np.abs(one.counts - other.counts).sum() <= 2  # a value on a bin's edge may fall to either side
    centres, counts = one.occupied()
    assert (centres * counts).sum() / 3000 == pytest.approx(np.concatenate(parts).mean(), abs=0.1)


def test_values_count_by_their_weight():
    histogram = Histogram()
    histogram.add(np.full(10, 1.0, np.float32), 1.0, 0.5)
    histogram.add(np.full(10, -3.0, np.float32), 3.0, 0.1)
    centres, counts = histogram.occupied()
    assert centres == pytest.approx([-3, 1], abs=0.01)
    assert counts == pytest.approx([1, 5])
