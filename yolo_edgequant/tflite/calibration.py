"""Statistics of every activation over the calibration images, in one pass and constant memory.

The float graph runs on the XNNPACK delegate with all tensors kept, part by part (:mod:`.parts`), each part on a few
images before the next, so that the tensors of one part are in memory at a time. After each image the extremes of every
activation and, where they are asked for, a histogram and the means of its channels are updated. Estimators
(:mod:`.ranges`) work from these statistics alone, so trying another one does not run the images again.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from ..errors import DataError
from ..histogram import Histogram
from ..int8 import SIGMOID_RANGE
from ..level_shift import CandidateLogits
from ..processes import return_memory, usable_threads
from ..runtime.interpreter import allocated
from .candidate_cells import CandidateCells
from .graph import Graph
from .input_moments import InputMoments
from .parts import Part, split

_SAMPLES = 1 << 17  # values per tensor and image that enter the histogram; the extremes use all of them

_SHARE = 1 / 6  # of the memory of all tensors, for those of a part
_GROUP = 8  # images that run through a part before it is closed: opening all parts takes a third of an image's time


@dataclass
class Statistics:
    """What was seen of one activation.

    Attributes:
        minimum, maximum: extremes over all values of all images.
        histogram: distribution of an even sample of the values, or None where it was not asked for.
        mean: (C,) float64 of each channel, the last axis, or None where it was not asked for.
        moments: by position of the layers that read the activation; empty where they were not asked for.
        candidates: logits of the activation image by image, or None where they were not asked for.
    """

    minimum: float = np.inf
    maximum: float = -np.inf
    histogram: Histogram | None = None
    mean: np.ndarray | None = None
    moments: dict[int, InputMoments] = field(default_factory=dict)
    candidates: CandidateLogits | None = None
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
            mean = np.ones(len(rows), np.float32) @ rows / len(rows)  # an eighth of the time of rows.mean(0)
            self.mean = self.mean + (mean - self.mean) * (len(rows) / self._rows)
        for moments in self.moments.values():
            moments.update(values)
        if self.candidates is not None:
            self.candidates.update(values)


def collect(
    graph: Graph,
    images: Iterable[np.ndarray],
    histograms: set[int] | None = None,
    threads: int | None = None,
    cells: CandidateCells | None = None,
    moments: bool = False,
    scores: Container[int] = (),
) -> dict[int, Statistics]:
    """Run the float model on each image once and gather statistics of its activations.

    Args:
        graph: float, with one float32 input.
        images: arrays of the input's shape, float32, values 0 to 1; consumed one at a time.
        histograms: tensor indices to keep a histogram of; None for all activations.
        threads: interpreter threads; None for one per core.
        cells: take the statistics of boxes and the like from cells that may become detections, if the images have any.
        moments: also gather those of the layers' inputs.
        scores: tensors of class logits, the classes last, of which those of candidates are kept.

    Returns:
        Statistics by tensor index, for every activation of the graph. The sigmoids of SiLUs, whose range is given, are
        not looked at.

    Raises:
        DataError: no image came, one has another shape than the input, or the model produced NaN or infinity.
    """
    tensors = graph.activations()
    sources = {op.inputs[0] for op in graph.operations if graph.bias(op) is not None}

    def fresh(wanted: Iterable[int]) -> dict[int, Statistics]:
        return {
            t: Statistics(
                histogram=Histogram() if histograms is None or t in histograms else None,
                mean=np.zeros(graph.shape(t)[-1]) if t in sources else None,
                candidates=CandidateLogits() if t in scores else None,
            )
            for t in wanted
        }

    gates = graph.silu_gates()
    statistics, of_candidates = fresh(tensors), fresh(cells.values.keys() - gates if cells else ())
    statistics |= {tensor: Statistics(*SIGMOID_RANGE) for tensor in gates}
    for op in graph.operations if moments else ():
        if graph.bias(op) is not None:
            statistics[op.inputs[0]].moments[op.index] = InputMoments(graph, op)

    def given() -> Iterator[dict[int, np.ndarray]]:
        """The input of each image; a DataError if it has another shape."""
        (source,) = graph.inputs
        for count, image in enumerate(images):
            if image.shape != graph.shape(source):
                raise DataError(
                    f"calibration image {count} has shape {image.shape}, the model takes {graph.shape(source)}"
                )
            statistics[source].update(image)
            yield {source: image}

    def run(part: Part, before: Iterable[dict[int, np.ndarray]]) -> list[dict[int, np.ndarray]]:
        """Run a part on what each image gave so far; what is handed on."""
        if part is parts[-1]:  # the largest, since a head's tensors are in it
            return_memory()
        interpreter, _, _ = allocated(part.content, threads or usable_threads())
        views = {tensor: interpreter.tensor(tensor) for tensor in part.computes}
        after = []
        for values in before:
            for tensor in part.reads:
                interpreter.set_tensor(tensor, values[tensor])
            interpreter.invoke()
            for tensor in part.computes:
                if tensor in statistics and tensor not in gates:
                    statistics[tensor].update(views[tensor]())
            if part is parts[-1] and cells is not None:
                candidates = cells.candidates(lambda tensor: views[tensor]())
                for tensor, of_cells in of_candidates.items() if candidates.any() else ():
                    wanted = cells.values_of(tensor, views[tensor](), candidates)
                    if wanted.size:
                        of_cells.update(wanted)
            after.append({t: values[t] if t in values else np.array(views[t]()) for t in part.hands_on})
            values.clear()
        return after

    parts = split(graph, _SHARE, (*cells.scores, *cells.values) if cells else (), gates)
    stream, count = given(), 0
    while group := run(parts[0], islice(stream, _GROUP)):
        count += len(group)
        for part in parts[1:]:
            group = run(part, group)
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
            of_cells.moments = statistics[tensor].moments  # of all cells, as a convolution reads them
            statistics[tensor] = of_cells
    return statistics
