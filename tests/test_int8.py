import numpy as np
import pytest

from yolo_edgequant import int8


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 6.0), (-0.2785, 11.0), (-3.0, 0.0)])
def test_the_grid_has_256_equal_steps_and_zero_is_one_of_them(low, high):
    values = int8.round_to_grid(np.linspace(low, high, 100_001), low, high)
    distinct = np.unique(values.round(9))
    assert len(distinct) == 256
    np.testing.assert_allclose(np.diff(distinct), (high - low) / int8.STEPS, rtol=1e-5)
    assert 0 in distinct
    assert int8.round_to_grid(np.zeros(1), low, high) == 0


def test_what_lies_outside_is_clipped():
    ends = int8.round_to_grid(np.array([-100.0, 100.0]), -1.0, 3.0)
    np.testing.assert_allclose(ends, [-1.0, 3.0], atol=4 / 255)


def test_no_value_moves_by_more_than_half_a_step():
    values = np.random.default_rng(0).uniform(-1, 3, 10_000)
    assert np.abs(int8.round_to_grid(values, -1.0, 3.0) - values).max() <= 4 / 255  # of the zero, which moves the grid
    assert np.abs(int8.round_to_grid(values, -1.0, 1.55) - values.clip(-1, 1.55)).max() <= 2.55 / 255 / 2 + 1e-9


@pytest.mark.parametrize("axes", [(0, 1), (1,)])
def test_weights_keep_the_largest_of_what_shares_a_scale(axes):
    weights = np.random.default_rng(0).normal(0, 1, (4, 50)) * np.array([1, 10, 0.01, 0])[:, None]
    rounded = int8.round_weights(weights, axes)
    largest = np.abs(weights).max(axes, keepdims=True)
    np.testing.assert_allclose(np.abs(rounded).max(axes, keepdims=True), largest)
    assert np.all(np.abs(rounded - weights) <= largest / int8.LARGEST_WEIGHT / 2 + 1e-12)
    assert np.isfinite(rounded).all()
    with np.errstate(invalid="ignore", divide="ignore"):
        steps = rounded / (largest / int8.LARGEST_WEIGHT)
    np.testing.assert_allclose(steps[:3], steps[:3].round(), atol=1e-6)


def test_weights_lie_between_minus_and_plus_127_steps():
    rounded = int8.round_weights(np.array([[1.0, -1.0, 0.3]]), (1,))
    np.testing.assert_allclose(rounded, [[1.0, -1.0, 38 / 127]], atol=1e-12)


def test_a_sigmoid_has_steps_of_a_256th():
    low, high = int8.SIGMOID_RANGE
    assert low == 0
    assert (high - low) / int8.STEPS == 1 / 256
