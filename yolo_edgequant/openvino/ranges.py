"""From statistics to ranges of an OpenVINO model's activations.

OpenVINO computes SiLU in float and rounds its result, so what an 8-bit range is worth shows in the rounded tensor
itself: here it is the range with the least squared error, every image counting by its share of its own mean square.
NNCF takes the mean of the images' extremes, which clips the largest values of every second image.

A concatenation is computed in one scale. Its inputs get one range, with the least sum of their errors.

Box decoding, where it is rounded, keeps NNCF's rule: boxes and scores are in one tensor there, and a box is as wide as
it is. Tensors with a range for each channel keep the extremes of all images, which is NNCF's rule for these.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

import numpy as np
import openvino as ov

from ..int8 import STEPS, round_to_grid
from . import graph
from .calibration import Statistics

Range = tuple[np.ndarray | float, np.ndarray | float]

_SHARES = np.geomspace(0.02, 1, 60)


def choose(quantized: ov.Model, statistics: dict[str, Statistics], decoding: Container[str]) -> dict[str, Range]:
    """A range for every rounding of activations.

    Args:
        quantized: from :func:`.quantizer.quantize`.
        statistics: from :func:`.calibration.collect`.
        decoding: names of the operations of box decoding.

    Returns:
        (low, high) by the name of the rounding; (C,) arrays where it has a range for each channel.
    """
    ranges: dict[str, Range] = {}
    for group in graph.sharing_scales(quantized):
        sources = {graph.computed(node).get_friendly_name(): graph.computed(node) for node in group}
        members = [statistics[name] for name in sources]
        if any(source.get_type_name() == "Parameter" for source in sources.values()):
            ends: Range = (0.0, 1.0)  # images: a scale of exactly 1/255, whatever the calibration images hold
        elif any(_is_by_channel(node) for node in group):
            ends = np.minimum.reduce([s.least for s in members]), np.maximum.reduce([s.greatest for s in members])
        elif any(_is_of_decoding(node, decoding) for node in group):
            ends = min(s.low for s in members), max(s.high for s in members)
        else:
            ends = _search(members)
        ranges |= {node.get_friendly_name(): _with_zero(*ends) for node in group}
    return ranges


def _is_by_channel(rounding: ov.Node) -> bool:
    return graph.constant(rounding.input_value(1).get_node()).size > 1


def _is_of_decoding(rounding: ov.Node, decoding: Container[str]) -> bool:
    readers = (target.get_node() for target in rounding.output(0).get_target_inputs())
    return any(node.get_friendly_name() in decoding for node in (graph.computed(rounding), *readers))


def _search(members: Sequence[Statistics]) -> Range:
    """The (low, high) with the least squared error of all members; coordinate descent over shares of the extremes."""
    parts = [s.histogram.occupied() for s in members]
    ends = [values[[0, -1]] for values, _ in parts if values.size]
    if not ends:
        return 0.0, 0.0
    least, greatest = min(0.0, *(end[0] for end in ends)), max(0.0, *(end[1] for end in ends))

    def cost(low: float, high: float) -> float:
        if high <= low:
            return np.inf
        return sum(float(weights @ np.square(round_to_grid(v, low, high) - v)) for v, weights in parts)

    low, high = least, greatest
    for _ in range(4):
        before = (low, high)
        high = min(greatest * _SHARES, key=lambda end: cost(low, end))
        low = min(least * _SHARES, key=lambda end: cost(end, high))
        if (low, high) == before:
            break
    return low, high


def _with_zero(low: np.ndarray | float, high: np.ndarray | float) -> Range:
    """The range of the same width, moved so that one of its 256 values is exactly 0."""
    low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    high = np.where(high > low, high, low + 1)  # nothing but zeros was seen
    step = (high - low) / STEPS
    zero = np.round(-low / step)
    return -zero * step, (STEPS - zero) * step
