"""Scores that mean the same: what 8 bits take off the class logits of a level goes back onto its bias.

A threshold is set once and kept. But where a layer's range clips what objects excite most, their logits come out lower
(:mod:`..level_shift`). The median difference is the same for all classes, so the bias of the last convolution takes it
back at no cost in the file. The float model's logits are those that calibration kept of its images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from .. import level_shift
from ..level_shift import Shift
from ..processes import return_memory, usable_threads
from ..runtime.interpreter import TFLite
from . import packing
from .calibrated import CalibratedGraph
from .candidate_cells import CandidateCells
from .graph import Graph, Operation
from .operators import MOVE


def align(
    calibrated: CalibratedGraph, cells: CandidateCells, quantized: bytes, images: Sequence[np.ndarray]
) -> CalibratedGraph | None:
    """Give the last convolutions of the scores biases that take back what quantization does to their results.

    Args:
        calibrated: float, with statistics that have the logits of candidates.
        cells: of the same graph.
        quantized: a file of it.
        images: that it was calibrated on, float32 from 0 to 1, by number.

    Returns:
        The same with other biases, and ranges that hold what these add; None if nothing is systematic.
    """
    layers = score_layers(calibrated.graph, cells)
    changes = level_shift.changes(measure(calibrated, layers, quantized, images)) if layers else {}
    return _moved(calibrated, {layers[level]: change for level, change in changes.items()}) if changes else None


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
    calibrated: CalibratedGraph, layers: Sequence[Operation], quantized: bytes, images: Sequence[np.ndarray]
) -> list[Shift]:
    """How the logits of some layers differ from the float graph's, layer by layer.

    Args:
        calibrated: float, with statistics that have the logits of candidates.
        layers: of its graph.
        quantized: a file of it.
        images: that it was calibrated on, by number; some are run.
    """
    tensors = [op.outputs[0] for op in layers]
    model = packing.with_outputs(quantized, [calibrated.graph.name(tensor) for tensor in tensors])
    return_memory()  # that quantizing and packing took
    integer = TFLite(model, usable_threads())

    def run(image: np.ndarray) -> list[np.ndarray]:
        results = integer.run(integer.input.stored(image))
        return [kind.values(stored) for kind, stored in zip(integer.outputs, results, strict=True)]

    return level_shift.measure(run, [calibrated.statistics[tensor].candidates for tensor in tensors], images)


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
