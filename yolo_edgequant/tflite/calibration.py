"""Statistics of every activation over the calibration images, in one pass and constant memory.

The float graph runs on the XNNPACK delegate with all tensors kept; after each image the extremes of every activation
and, where they are asked for, a histogram and the means of its channels are updated. Estimators (:mod:`.ranges`) work
from these statistics alone, so trying another one does not run the images again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from ..histogram import Histogram
from ..processes import usable_threads
from ..runtime.interpreter import open_tflite
from .candidate_cells import CandidateCells
from .graph import Graph

_SAMPLES = 1 << 17  # values per tensor and image that enter the histogram; the extremes use all of them


@dataclass
class Statistics:
    """What was seen of one activation.

    Attributes:
        minimum, maximum: extremes over all values of all images.
        histogram: distribution of an even sample of the values, or None where it was not asked for.
        mean: (C,) float64 of each channel, the last axis, or None where it was not asked for.
    """

    minimum: float = np.inf
    maximum: float = -np.inf
    histogram: Histogram | None = None
    mean: np.ndarray | None = None
    _rows: int = 0  # that the mean is over

    def update(self, values: np.ndarray) -> None:
        """Add the values (float32, any shape) that one image gave."""
        flat = values.reshape(-1)
        low, high = float(flat.min()), float(flat.max())
        self.minimum = float(np.minimum(self.minimum, low))  # NaN stays, unlike with min()
        self.maximum = float(np.maximum(self.maximum, high))
        if self.histogram is not None and np.isfinite([low, high]).all():  # collect() reports what is not
            step = max(1, flat.size // _SAMPLES) | 1  # odd: coprime to the channel counts, so no channel is left out
            self.histogram.add(flat[::step], max(-low, high))
        if self.mean is not None:
            rows = values.reshape(-1, values.shape[-1])
            self._rows += len(rows)
            self.mean = self.mean + (rows.mean(0, dtype=np.float64) - self.mean) * (len(rows) / self._rows)


def collect(
    graph: Graph,
    images: Iterable[np.ndarray],
    histograms: set[int] | None = None,
    threads: int | None = None,
    cells: CandidateCells | None = None,
) -> dict[int, Statistics]:
    """Run the float model on each image once and gather statistics of its activations.

    Args:
        graph: float, with one float32 input.
        images: arrays of the input's shape, float32, values 0 to 1; consumed one at a time.
        histograms: tensor indices to keep a histogram of; None for all activations.
        threads: interpreter threads; None for one per core.
        cells: take the statistics of boxes and the like from cells that may become detections, if the images have any.

    Returns:
        Statistics by tensor index, for every activation of the graph.

    Raises:
        DataError: no image came, one has another shape than the input, or the model produced NaN or infinity.
    """
    tensors = graph.activations()
    interpreter, source, _ = open_tflite(graph.content, threads or usable_threads(), keep_all=True)
    shape = tuple(int(n) for n in source["shape"])

    sources = {op.inputs[0] for op in graph.operations if graph.bias(op) is not None}

    def fresh(wanted: Iterable[int]) -> dict[int, Statistics]:
        return {
            t: Statistics(
                histogram=Histogram() if histograms is None or t in histograms else None,
                mean=np.zeros(graph.shape(t)[-1]) if t in sources else None,
            )
            for t in wanted
        }

    statistics, of_candidates = fresh(tensors), fresh(cells.values if cells else ())
    views = {t: interpreter.tensor(t) for t in tensors}
    count = 0
    for image in images:
        if image.shape != shape:
            raise DataError(f"calibration image {count} has shape {image.shape}, the model takes {shape}")
        interpreter.set_tensor(source["index"], image)
        interpreter.invoke()
        for tensor in tensors:
            statistics[tensor].update(views[tensor]())
        if cells is not None and (candidates := cells.candidates(lambda tensor: views[tensor]())).any():
            for tensor, of_cells in of_candidates.items():
                values = cells.values_of(tensor, views[tensor](), candidates)
                if values.size:
                    of_cells.update(values)
        count += 1
    if not count:
        raise DataError("the calibration set is empty: pass data= with at least one image (100 or more advised)")
    for tensor in tensors:
        low, high = statistics[tensor].minimum, statistics[tensor].maximum
        if not np.isfinite([low, high]).all():
            raise DataError(
                f"tensor '{graph.name(tensor)}' has values from {low} to {high} on the calibration images: "
                "the float model is broken, check the checkpoint"
            )
    for tensor, of_cells in of_candidates.items():
        if np.isfinite(of_cells.minimum):
            statistics[tensor] = of_cells
    return statistics
