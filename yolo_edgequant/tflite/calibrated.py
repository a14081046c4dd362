"""A float graph with the statistics or the trained ranges of its activations: quantized as often as wanted."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..log import LOGGER
from ..options import IO, Granularity, Head, RangeEstimator
from . import bias_correction, calibration, quantizer, recipe, rounding
from .calibration import Statistics
from .candidate_cells import CandidateCells
from .graph import Graph
from .ranges import Ranges, estimate, histogram_tensors, propagate
from .shared_scales import share_scales
from .weights import WeightEditor


@dataclass(frozen=True)
class CalibratedGraph:
    """A float graph with what is known of its activations.

    Attributes:
        graph: the graph.
        estimator: of the ranges.
        statistics: per tensor index; with the moments of layers' inputs, their weights are rounded together.
        logits: outputs of which the host will take the sigmoid.
        trained: ranges from quantization-aware training; with them there are no statistics.
    """

    graph: Graph
    estimator: RangeEstimator
    statistics: dict[int, Statistics]
    logits: frozenset[int]
    trained: Ranges | None = None

    def ranges(self, in_float: Container[int] = ()) -> Ranges:
        """The range of every activation; `in_float` has the positions of operations that will not be quantized."""
        if self.trained is not None:
            return propagate(self.graph, self.trained, in_float)
        ranges = estimate(self.estimator, self.graph, self.statistics, self.logits)
        ranges = share_scales(self.graph, ranges, in_float)
        for tensor in self.graph.inputs:
            ranges[tensor] = (0.0, 1.0)  # images: a scale of exactly 1/255, whatever the calibration images hold
        return ranges

    def quantize(
        self,
        head: Head,
        granularity: Granularity,
        io: IO,
        correct_bias: bool = True,
        in_float: recipe.Rule | None = None,
    ) -> bytes:
        """Write an INT8 file.

        Args:
            head: a raw graph has no box decoding left, so all of it is in integers.
            granularity: of the weights' scales.
            io: type of the input, and of the outputs unless box decoding is in float.
            correct_bias: see :mod:`.bias_correction`; :mod:`.rounding` always does.
            in_float: what else stays in float.

        Raises:
            RecipeError: the rule for box decoding matched nothing.
        """
        rules = [recipe.Rule("the whole graph", False)]
        if head == Head.FLOAT:
            rules.append(recipe.float_decoding(self.graph))
        if in_float is not None:
            rules.append(in_float)
        for rule in rules:
            count = len(self.graph.operations if rule.operations is None else rule.operations)
            LOGGER.info("%s: %d operations in %s", rule.scope, count, "float" if rule.in_float else "int8")
        float_output = io == IO.FLOAT or head == Head.FLOAT
        plan = recipe.to_ai_edge(rules, self.graph, granularity, io == IO.FLOAT, float_output)
        kept = {op.index for rule in rules if rule.in_float for op in rule.operations or ()}
        content, ranges = self.graph.content, self.ranges(kept)
        if any(statistics.moments for statistics in self.statistics.values()):
            content = rounding.with_weights(self.graph, self._rounded(granularity), kept)
        elif correct_bias and self.trained is None:
            content = bias_correction.correct_biases(self.graph, self.statistics, granularity, kept)
        quantized = quantizer.quantize(content, self.graph, ranges, plan)
        return quantizer.unsigned_io(quantized) if io == IO.UINT8 else quantized

    def with_biases(self, added: Mapping[int, float], statistics: dict[int, Statistics]) -> CalibratedGraph:
        """The same with something added to all biases of some layers, their weights rounded as before.

        Args:
            added: in the units of the layers' outputs, by position of the operation.
            statistics: of the graph that this makes.
        """
        editor = WeightEditor(self.graph)
        for index, change in added.items():
            op = self.graph.operations[index]
            bias = self.graph.bias(op)
            editor.replace(op, bias, self.graph.constant(op.inputs[bias]) + np.float32(change))
        other = replace(self, graph=Graph(editor.content()), statistics=statistics)
        for granularity, layers in self._by_granularity.items():
            moved = {index: replace(layers[index], bias=layers[index].bias + added[index]) for index in added}
            other._by_granularity[granularity] = layers | moved
        return other

    def _rounded(self, granularity: Granularity) -> dict[int, rounding.RoundedLayer]:
        """All layers, rounded once however many files are written."""
        if granularity not in self._by_granularity:
            layers = rounding.round_layers(self.graph, self.statistics, self.ranges(), granularity)
            self._by_granularity[granularity] = layers
        return self._by_granularity[granularity]

    @cached_property
    def _by_granularity(self) -> dict[Granularity, dict[int, rounding.RoundedLayer]]:
        return {}


def calibrate(
    graph: Graph,
    images: Iterable[np.ndarray],
    logits: Sequence[int] = (),
    cells: CandidateCells | None = None,
    estimator: RangeEstimator = RangeEstimator.ACTIVATION,
    moments: bool = False,
    compared: Container[int] = (),
) -> CalibratedGraph:
    """Run the images through a float graph, once.

    Args:
        graph: its input is float32 with values 0 to 1.
        images: arrays of the input's shape, consumed one at a time.
        logits: positions of the outputs of which the host will take the sigmoid.
        cells: where the graph holds values of cells, for ranges that cover those of possible detections.
        estimator: of the ranges.
        moments: gather what :mod:`.rounding` needs.
        compared: tensors of class logits that :mod:`.score_alignment` compares.

    Raises:
        DataError: no image, a wrong shape, or values that are not finite.
    """
    scores = frozenset(graph.outputs[position] for position in logits)
    wanted = histogram_tensors(estimator, graph, scores)
    statistics = calibration.collect(graph, images, wanted, cells=cells, moments=moments, scores=compared)
    return CalibratedGraph(graph, estimator, statistics, scores)
