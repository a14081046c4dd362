"""Where a ``.tflite`` file rounds, for :mod:`.qat`, and the file's ranges from a model that was trained so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import nn

from ..int8 import SIGMOID_RANGE
from ..options import RangeEstimator
from ..tflite.calibrated import CalibratedGraph
from ..tflite.graph import Graph
from ..tflite.interpreter import activations
from ..tflite.ranges import decoding_operations, propagate
from .fake_quantization import Call, quantization_of
from .qat import Range, trained_ranges
from .tensor_matching import fingerprint, match, probe_image


class TFLitePoints:
    """See :class:`.qat.FilePoints`.

    Args:
        raw: the model without box decoding, calibrated.
        int8: the same with box decoding.
        shape: (B, C, H, W) of the probe image.
    """

    def __init__(self, raw: CalibratedGraph, int8: CalibratedGraph, shape: tuple[int, ...]) -> None:
        self._graph, self._int8 = raw.graph, int8
        self.fingerprints, self.ranges = fingerprints_of(raw.graph, shape), raw.ranges()

    def check(self, matched: Mapping[int, int], fingerprints: Mapping[int, np.ndarray]) -> None:
        """See :class:`.qat.FilePoints`.

        Raises:
            RecipeError: a tensor that is computed in 8 bits has no range.
        """
        points = match(self.fingerprints, {number: fingerprints[number] for number in matched})
        propagate(self._graph, {tensor: self.ranges[matched[number]] for tensor, number in points.items()})

    def fixed(self, calls: list[Call], fingerprints: Mapping[int, np.ndarray]) -> dict[int, Range | None]:
        """See :class:`.qat.FilePoints`."""
        # the outputs' ranges end where scores count as nothing, which losses over all cells would have them forget
        outputs = {tensor: self.fingerprints[tensor] for tensor in self._graph.outputs}
        fixed: dict[int, Range | None] = dict.fromkeys(match(outputs, fingerprints).values())
        # TFLite's kernels give these results their range, whatever their values
        return fixed | {n: SIGMOID_RANGE for n in fingerprints if calls[n].name in {"sigmoid", "softmax"}}

    def decoding(self, fingerprints: Mapping[int, np.ndarray]) -> list[tuple[str, float, float]]:
        """See :class:`.qat.FilePoints`."""
        ranges = self._int8.ranges()
        return [(op.kind, *ranges[op.outputs[0]]) for op in decoding_operations(self._int8.graph)]


def trained_graph(model: nn.Module, graph: Graph, shape: tuple[int, ...], logits: Sequence[int]) -> CalibratedGraph:
    """A float graph of a quantization-aware model with the ranges that were trained.

    Args:
        model: with its fake quantization.
        graph: of it.
        shape: (B, C, H, W) of the probe image.
        logits: positions of the outputs of which the host will take the sigmoid.
    """
    ranges = trained_ranges(model, shape, fingerprints_of(graph, shape))
    decoding, known = decoding_operations(graph), quantization_of(model).head
    if [op.kind for op in decoding] == [kind for kind, _, _ in known]:
        ranges |= {op.outputs[0]: (low, high) for op, (_, low, high) in zip(decoding, known, strict=True)}
    scores = frozenset(graph.outputs[position] for position in logits)
    return CalibratedGraph(graph, RangeEstimator.ACTIVATION, {}, scores, ranges)


def fingerprints_of(graph: Graph, shape: tuple[int, ...]) -> dict[int, np.ndarray]:
    """Fingerprints of every activation of a float graph for the probe image, (B, 3, H, W)."""
    channels_last = graph.shape(graph.inputs[0]) != shape
    values = activations(graph, probe_image(shape, channels_last))
    return {tensor: fingerprint(value) for tensor, value in values.items()}
