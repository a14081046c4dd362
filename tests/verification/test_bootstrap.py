from dataclasses import replace

import numpy as np
import pytest

from tests.detections import detections, random_detections
from yolo_edgequant.errors import DataError
from yolo_edgequant.verification.average_precision import mean_average_precision
from yolo_edgequant.verification.bootstrap import Resampled, retention


def test_retention_is_of_the_images_as_they_are():
    reference, quantized = random_detections(50, 0), random_detections(50, 0, noise=0.2)
    once = np.ones((1, 50), int)
    expected = mean_average_precision(quantized, once) / mean_average_precision(reference, once)
    assert retention(reference, quantized).value == pytest.approx(expected[0])
    assert 0.5 < expected[0] < 0.99


def test_a_model_is_its_own_equal_without_any_doubt():
    reference = random_detections(50, 0)
    estimate = retention(reference, reference)
    assert (estimate.value, estimate.error) == (1.0, 0.0)


def test_the_error_is_the_spread_over_other_images_of_the_kind():
    """What the bootstrap says of 100 images, against the retentions of 40 sets of 100."""
    quantized = [retention(random_detections(100, s), random_detections(100, s, noise=0.1), 50) for s in range(40)]
    spread = np.std([estimate.value for estimate in quantized], ddof=1)
    assert np.mean([estimate.error for estimate in quantized]) == pytest.approx(spread, rel=0.25)
    assert spread > 0.005


def test_both_models_have_the_same_draws():
    """Images differ far more than models do, so without pairs the error would be many times as large."""
    reference, quantized = random_detections(100, 0), random_detections(100, 0, noise=0.02)
    paired = retention(reference, quantized).error
    maps = mean_average_precision(reference, np.random.default_rng(1).multinomial(100, np.full(100, 0.01), 200))
    assert 0 < paired < maps.std() / maps.mean() / 3


def test_the_difference_of_two_models_and_its_own_error():
    reference, one, other = (random_detections(100, 0, noise) for noise in (0.0, 0.1, 0.15))
    resampled = Resampled(reference)
    maps = [resampled.maps(statistics) for statistics in (one, other)]
    kept = [resampled.retention(of_model) for of_model in maps]
    difference = resampled.difference(maps[1], maps[0])
    assert difference.value == pytest.approx(kept[1].value - kept[0].value)
    assert difference.error > 0
    same = resampled.difference(maps[0], maps[0])
    assert (same.value, same.error) == (0.0, 0.0)


def test_a_seed_is_repeatable_and_another_is_another():
    reference, quantized = random_detections(50, 0), random_detections(50, 0, noise=0.2)
    assert retention(reference, quantized, seed=3) == retention(reference, quantized, seed=3)
    assert retention(reference, quantized, seed=3).error != retention(reference, quantized, seed=4).error


def test_other_images_are_refused():
    reference = random_detections(3, 0)
    other = replace(reference, files=np.array(["0.jpg", "1.jpg", "other.jpg"]))
    with pytest.raises(DataError, match=r"validated on different images: 3 from '0.jpg' on, and 3"):
        retention(reference, other)


def test_no_images_and_nothing_to_keep_are_refused():
    with pytest.raises(DataError, match="needs images"):
        retention(detections([], []), detections([], []))
    blind = detections([[]], [[0]])
    with pytest.raises(DataError, match="is 0 on these images"):
        retention(blind, blind)


def test_draws_without_any_of_the_float_models_objects_are_left_out():
    """One image in two has all the objects: a draw in four has none of it."""
    reference = detections([[(0, 0.9, 10)], []], [[0], []])
    estimate = retention(reference, reference, 50)
    assert (estimate.value, estimate.error) == (1.0, 0.0)
