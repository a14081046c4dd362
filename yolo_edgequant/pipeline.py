"""Float graph and images in, INT8 ``.tflite`` files out: calibrated once, quantised as often as wanted."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .quantization import calibration, ranges, recipe, tflite
from .quantization.cells import Cells
from .quantization.graph import Graph

LOGGER = logging.getLogger("yolo_edgequant")


@dataclass(frozen=True)
class Calibrated:
    """A float graph with the ranges of its activations.

    Attributes:
        content: the float ``.tflite`` file.
        graph: the same, as a graph.
        ranges: per tensor index.
    """

    content: bytes
    graph: Graph
    ranges: ranges.Ranges

    def quantise(self, head: str, granularity: str, io: str) -> bytes:
        """Make an INT8 file.

        Args:
            head: ``int8``, ``float`` or ``raw``; a raw graph has no head left, so all of it is in integers.
            granularity: ``channel`` or ``tensor``.
            io: type of the input, and of the outputs unless the head is in float: ``int8``, ``uint8`` or ``float``.

        Raises:
            RecipeError: the rule for the head matched nothing.
        """
        rules = [recipe.Rule("the whole graph", "int8")]
        if head == "float":
            rules.append(recipe.float_head(self.graph))
        for rule in rules:
            count = len(self.graph.operations if rule.operations is None else rule.operations)
            LOGGER.info("%s: %d operations in %s", rule.scope, count, rule.precision)
        plan = recipe.to_ai_edge(rules, self.graph, granularity, io == "float", io == "float" or head == "float")
        content = tflite.quantize(self.content, self.graph, self.ranges, plan)
        return tflite.unsigned_io(content) if io == "uint8" else content


def calibrate(
    content: bytes,
    images: Iterable[np.ndarray],
    estimator: str,
    logits: Sequence[int] = (),
    cells: Cells | None = None,
) -> Calibrated:
    """Run the images through a float ``.tflite`` file, once, and choose the ranges of its activations.

    Args:
        content: the file; its input is float32 with values 0 to 1.
        images: arrays of the input's shape, consumed one at a time.
        estimator: a key of :data:`.quantization.ranges.ESTIMATORS`.
        logits: positions of the outputs of which the host will take the sigmoid.
        cells: where the graph holds values of cells, for ranges that cover those of possible detections.

    Raises:
        CalibrationError: no image, a wrong shape, or values that are not finite.
    """
    graph = Graph(content)
    scores = frozenset(graph.outputs[position] for position in logits)
    statistics = calibration.collect(content, images, ranges.histogram_tensors(estimator, graph, scores), cells=cells)
    chosen = ranges.estimate(estimator, graph, statistics, scores)
    for tensor in graph.inputs:
        chosen[tensor] = (0.0, 1.0)  # images: a scale of exactly 1/255, whatever the calibration images hold
    return Calibrated(content, graph, chosen)
