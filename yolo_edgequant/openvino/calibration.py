"""Statistics of what an OpenVINO model rounds, over the calibration images, in one pass and constant memory.

Every image counts the same, however large its values are: a few pictures without an object may give values a hundred
times those of all others, and the mean square over all values would then be theirs alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import openvino as ov

from ..errors import DataError
from ..histogram import Histogram
from ..level_shift import CandidateLogits
from . import graph
from .interpreter import EXACT

_SAMPLES = 1 << 16  # values per tensor and image that enter the histogram; the extremes use all of them


@dataclass
class Statistics:
    """What was seen of one tensor.

    Attributes:
        histogram: distribution of an even sample of the values, each by its share of its image's mean square.
        low, high: extremes of an image, the mean over the images.
        least, greatest: (C,) extremes of each channel, the second axis, over all images.
    """

    histogram: Histogram = field(default_factory=Histogram)
    low: float = 0.0
    high: float = 0.0
    least: np.ndarray | float = np.inf
    greatest: np.ndarray | float = -np.inf
    _images: int = 0

    def update(self, values: np.ndarray) -> None:
        """Add the values (float32, (B, C, ...)) that one image gave."""
        axes = (0, *range(2, values.ndim))
        lows, highs = values.min(axes), values.max(axes)
        self.least, self.greatest = np.minimum(self.least, lows), np.maximum(self.greatest, highs)
        low, high = float(lows.min()), float(highs.max())
        self._images += 1
        self.low += (low - self.low) / self._images
        self.high += (high - self.high) / self._images
        flat = values.reshape(-1)
        sample = flat[:: max(1, flat.size // _SAMPLES) | 1]  # odd: coprime to most sizes, so no column is left out
        energy = float(np.square(sample, dtype=np.float64).sum())
        if energy > 0:  # an image that gives nothing but zeros fits any range
            self.histogram.add(sample, max(-low, high), 1 / energy)


@dataclass(frozen=True)
class Calibration:
    """What a pass over the images gave.

    Attributes:
        statistics: by name of the operation whose result is rounded.
        means: of each layer's input, (C,) float64, by name of the layer.
        candidates: of the layers that compute class logits and were asked for, by name.
    """

    statistics: dict[str, Statistics]
    means: dict[str, np.ndarray]
    candidates: dict[str, CandidateLogits]


def collect(
    float_model: ov.Model, quantized: ov.Model, images: Iterable[np.ndarray], scores: Sequence[str] = ()
) -> Calibration:
    """Run the float model on each image once.

    Args:
        float_model: stays as it is.
        quantized: from :func:`.quantizer.quantize`; says what is rounded.
        images: (B, 3, H, W) float32, values 0 to 1; consumed one at a time.
        scores: names of the layers that compute class logits, of which those of candidates are kept.

    Raises:
        DataError: no image came, or the model produced NaN or infinity.
    """
    nodes = {node.get_friendly_name(): node for node in float_model.get_ops()}
    rounded = list(dict.fromkeys(graph.computed(node).get_friendly_name() for node in graph.roundings(quantized)))
    layers = graph.layers(float_model)
    outputs = [nodes[name].output(0) for name in rounded] + [layer.input_value(0) for layer in layers]
    outputs += graph.with_bias(float_model, scores)
    compiled = ov.compile_model(ov.Model(outputs, float_model.get_parameters()), "CPU", EXACT)
    statistics = {name: Statistics() for name in rounded}
    sums = {layer.get_friendly_name(): np.zeros(1) for layer in layers}
    candidates = {name: CandidateLogits() for name in scores}
    channel = {layer.get_friendly_name(): graph.channel_axis(layer) for layer in layers}
    count = 0
    for image in images:
        results = compiled([image])
        for position, name in enumerate(rounded):
            values = results[position]
            if not np.isfinite([values.min(), values.max()]).all():
                raise DataError(
                    f"'{name}' has values from {values.min()} to {values.max()} on calibration image {count}: the "
                    "float model is broken, check the checkpoint"
                )
            statistics[name].update(values)
        for position, name in enumerate(sums, len(rounded)):
            values = np.moveaxis(results[position], channel[name], 0)
            sums[name] = sums[name] + values.reshape(len(values), -1).mean(1).astype(np.float64)
        for position, kept in enumerate(candidates.values(), len(rounded) + len(sums)):
            kept.update(np.moveaxis(results[position], 1, -1))
        count += 1
    if not count:
        raise DataError("the calibration set is empty: pass data= with at least one image (100 or more advised)")
    return Calibration(statistics, {name: total / count for name, total in sums.items()}, candidates)
