"""Scores that mean the same: what 8 bits take off the class logits of a level goes back onto its bias.

A threshold is set once and kept. But where a layer's range clips what objects excite most, their logits come out lower,
and those of one level more than those of another. The median difference over the cells with an object is the same for
all classes, so the bias of the last convolution takes it back at no cost in the file.

An object counts by the mean of its two scores: of those that the float model alone finds surest, some are so by chance,
and the INT8 model's would be lower even if nothing were shifted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..decoding.in_numpy import sigmoid
from ..log import LOGGER
from ..processes import return_memory, usable_threads
from ..runtime.interpreter import TFLite
from . import packing
from .calibrated import CalibratedGraph
from .candidate_cells import CandidateCells
from .graph import Graph, Operation
from .operators import MOVE

_SURE = 0.1  # mean score of a cell that counts
_ENOUGH = 8  # images with such a cell
_DRAWS = 200
_ERRORS = 2  # standard errors from which a shift is taken to be one


@dataclass(frozen=True)
class Shift:
    """How the logits of a level differ, INT8 less float.

    Attributes:
        median: over the cells that count.
        error: its standard error, by bootstrap over the images.
        images: with a cell that counts.
    """

    median: float
    error: float
    images: int

    @property
    def systematic(self) -> bool:
        """True if chance does not explain it."""
        return self.images >= _ENOUGH and abs(self.median) > _ERRORS * self.error


def align(
    calibrated: CalibratedGraph, cells: CandidateCells, quantized: bytes, images: Iterable[np.ndarray]
) -> CalibratedGraph | None:
    """Give the last convolutions of the scores biases that take back what quantization does to their results.

    Args:
        calibrated: float, with statistics.
        cells: of the same graph.
        quantized: a file of it.
        images: float32 from 0 to 1, of the graph's input's shape, each gone through once.

    Returns:
        The same with other biases, and ranges that hold what these add; None if nothing is systematic.
    """
    layers = score_layers(calibrated.graph, cells)
    shifts = measure(calibrated.graph, layers, quantized, images) if layers else {}
    wrong = {op: -shifts[op.index].median for op in layers if shifts[op.index].systematic}
    if not wrong:
        return None
    LOGGER.info(
        "scores aligned: logits %s",
        ", ".join(f"{change:+.2f} of level {layers.index(op) + 1} of {len(layers)}" for op, change in wrong.items()),
    )
    return _moved(calibrated, wrong)


def score_layers(graph: Graph, cells: CandidateCells) -> list[Operation]:
    """The convolutions that compute the class logits, the level with the most cells first."""
    layers, pending = {}, list(cells.scores)
    while pending:
        op = graph.producer[pending.pop()]
        if graph.bias(op) is not None:
            layers[op.index] = op
        elif op.kind in MOVE:
            pending += [tensor for tensor in op.inputs if tensor in graph.producer]
    return sorted(layers.values(), key=lambda op: -np.prod(graph.shape(op.outputs[0])))


def measure(
    graph: Graph, layers: Iterable[Operation], quantized: bytes, images: Iterable[np.ndarray]
) -> Mapping[int, Shift]:
    """How the logits of some layers differ from the float graph's, by position of the layer."""
    names = {op.index: graph.name(op.outputs[0]) for op in layers}
    models = [packing.with_outputs(content, list(names.values())) for content in (graph.content, quantized)]
    return_memory()  # that quantizing and packing took
    both = [TFLite(model, usable_threads()) for model in models]
    tensors = list(zip(*(model.outputs for model in both), strict=True))
    differences: dict[int, list[np.ndarray]] = {index: [] for index in names}
    for image in images:
        outputs = [model.run(model.input.stored(image)) for model in both]
        for index, kinds, values in zip(names, tensors, zip(*outputs, strict=True), strict=True):
            one, other = (kind.values(stored) for kind, stored in zip(kinds, values, strict=True))
            differences[index].append(_of_objects(one, other))
    return {index: _shift([image for image in own if image.size]) for index, own in differences.items()}


def _of_objects(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(N,) how much higher the second logit is, of the cells that count, each by its class with the highest two."""
    one, other = (values.reshape(-1, values.shape[-1]) for values in (one, other))
    row = np.arange(len(one)), (one + other).argmax(1)
    counts = sigmoid(one[row]) + sigmoid(other[row]) > 2 * _SURE
    return (other[row] - one[row])[counts]


def _shift(images: list[np.ndarray]) -> Shift:
    """Of the differences of each image that has any."""
    if not images:
        return Shift(0.0, np.inf, 0)
    random = np.random.default_rng(0)
    drawn = (random.integers(0, len(images), len(images)) for _ in range(_DRAWS))
    medians = [np.median(np.concatenate([images[index] for index in draw])) for draw in drawn]
    return Shift(float(np.median(np.concatenate(images))), float(np.std(medians)), len(images))


def _moved(calibrated: CalibratedGraph, changes: Mapping[Operation, float]) -> CalibratedGraph:
    """Add to the biases of layers, and to the greatest values of all that hands their results on."""
    graph, statistics = calibrated.graph, dict(calibrated.statistics)
    for op, change in changes.items():
        greatest = statistics[op.outputs[0]].maximum + change
        pending = [op.outputs[0]]
        while pending:
            tensor = pending.pop()
            known = statistics[tensor]
            own = greatest if tensor == op.outputs[0] else max(known.maximum, greatest)
            statistics[tensor] = replace(known, maximum=own)
            pending += [t for reader in graph.consumers[tensor] if reader.kind in MOVE for t in reader.outputs]
    return calibrated.with_biases({op.index: change for op, change in changes.items()}, statistics)
