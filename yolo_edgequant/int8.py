"""The 8-bit grid that all integer files share.

Activations: 256 values a tensor, at equal steps, one of them exactly 0. Weights: symmetric, -127 to 127 steps.
"""

from __future__ import annotations

import numpy as np

#: Steps between the ends of an activation's range.
STEPS = 255

#: Weights lie between minus and plus this many steps.
LARGEST_WEIGHT = 127

#: What TFLite's kernels give the results of sigmoid and softmax, whatever their values: steps of 1/256 from 0.
SIGMOID_RANGE = (0.0, 255 / 256)

#: A score under this counts as nothing: half of the lowest confidence that Ultralytics' validation looks at.
SCORE_FLOOR = 5e-4

#: The logit of 0.01, the lowest score with which a cell may become a detection that matters.
CANDIDATE_LOGIT = float(np.log(0.01 / 0.99))


def round_to_grid(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Round to the 256 values that cover [low, high], clipping what lies outside."""
    scale = (high - low) / STEPS
    zero = np.round(-low / scale)
    return (np.clip(np.round(values / scale) + zero, 0, STEPS) - zero) * scale


def round_weights(weights: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Weights as 8 bits hold them, the largest absolute value at the end of the grid.

    Args:
        weights: float64.
        axes: that share a scale.
    """
    steps = weight_steps(weights, axes)
    return np.clip(np.round(weights / steps), -LARGEST_WEIGHT, LARGEST_WEIGHT) * steps


def weight_steps(weights: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """The step between two neighbouring values of 8-bit weights, above 0, the given axes having length 1."""
    largest = np.abs(weights).max(axes, keepdims=True)
    return np.maximum(largest / LARGEST_WEIGHT, np.finfo(np.float32).tiny)
