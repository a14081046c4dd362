"""Float graph and images in, INT8 ``.tflite`` files out: calibrated once, quantised as often as wanted."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from .quantization import bias, calibration, ranges, recipe, tflite
from .quantization.calibration import Statistics
from .quantization.cells import Cells
from .quantization.graph import Graph
from .quantization.joins import join
from .runtime.interpreter import Tensor
from .verification.agreement import Run

LOGGER = logging.getLogger("yolo_edgequant")

_RUNS = 30


@dataclass(frozen=True)
class Calibrated:
    """A float graph with statistics of its activations.

    Attributes:
        content: the float ``.tflite`` file.
        graph: the same, as a graph.
        statistics: per tensor index.
        logits: outputs of which the host will take the sigmoid.
        trained: ranges from quantisation-aware training; with them there are no statistics.
    """

    content: bytes
    graph: Graph
    statistics: dict[int, Statistics]
    logits: frozenset[int]
    trained: ranges.Ranges | None = None

    def ranges(self, estimator: str, in_float: Container[int] = ()) -> ranges.Ranges:
        """The range of every activation.

        Args:
            estimator: a key of :data:`.quantization.ranges.ESTIMATORS`.
            in_float: positions of operations that will not be quantised.
        """
        if self.trained is not None:
            return ranges.completed(self.graph, self.trained, in_float)
        chosen = ranges.estimate(estimator, self.graph, self.statistics, self.logits)
        chosen = join(self.graph, chosen, in_float)
        for tensor in self.graph.inputs:
            chosen[tensor] = (0.0, 1.0)  # images: a scale of exactly 1/255, whatever the calibration images hold
        return chosen

    def quantise(
        self,
        head: str,
        granularity: str,
        io: str,
        estimator: str = "activation",
        correct_bias: bool = True,
        in_float: recipe.Rule | None = None,
    ) -> bytes:
        """Make an INT8 file.

        Args:
            head: ``int8``, ``float`` or ``raw``; a raw graph has no head left, so all of it is in integers.
            granularity: ``channel`` or ``tensor``.
            io: type of the input, and of the outputs unless the head is in float: ``int8``, ``uint8`` or ``float``.
            estimator: of the ranges.
            correct_bias: see :mod:`.quantization.bias`.
            in_float: what else stays in float.

        Raises:
            RecipeError: the rule for the head matched nothing.
        """
        rules = [recipe.Rule("the whole graph", "int8")]
        if head == "float":
            rules.append(recipe.float_head(self.graph))
        if in_float is not None:
            rules.append(in_float)
        for rule in rules:
            count = len(self.graph.operations if rule.operations is None else rule.operations)
            LOGGER.info("%s: %d operations in %s", rule.scope, count, rule.precision)
        plan = recipe.to_ai_edge(rules, self.graph, granularity, io == "float", io == "float" or head == "float")
        content = self.content
        kept = {op.index for rule in rules if rule.precision == "float" for op in rule.operations or ()}
        if correct_bias and self.trained is None:
            content = bias.correct(content, self.graph, self.statistics, granularity, kept)
        made = tflite.quantize(content, self.graph, self.ranges(estimator, kept), plan)
        return tflite.unsigned_io(made) if io == "uint8" else made


def calibrate(
    content: bytes,
    images: Iterable[np.ndarray],
    logits: Sequence[int] = (),
    cells: Cells | None = None,
    histograms: Sequence[str] = ("activation",),
) -> Calibrated:
    """Run the images through a float ``.tflite`` file, once.

    Args:
        content: the file; its input is float32 with values 0 to 1.
        images: arrays of the input's shape, consumed one at a time.
        logits: positions of the outputs of which the host will take the sigmoid.
        cells: where the graph holds values of cells, for ranges that cover those of possible detections.
        histograms: the estimators that will be asked for.

    Raises:
        CalibrationError: no image, a wrong shape, or values that are not finite.
    """
    graph = Graph(content)
    scores = frozenset(graph.outputs[position] for position in logits)
    wanted = set().union(*(ranges.histogram_tensors(estimator, graph, scores) for estimator in histograms))
    return Calibrated(content, graph, calibration.collect(content, images, wanted, cells=cells), scores)


def run(content: bytes, images: Sequence[np.ndarray]) -> Run:
    """The outputs of a ``.tflite`` file for images, float32 with values 0 to 1 and of the input's shape."""
    interpreter = Interpreter(model_content=content, num_threads=os.cpu_count() or 1)
    interpreter.allocate_tensors()
    (source,), targets = interpreter.get_input_details(), interpreter.get_output_details()
    made = []
    for image in images:
        interpreter.set_tensor(source["index"], Tensor.of(source).stored(image))
        interpreter.invoke()
        made.append([interpreter.get_tensor(target["index"]) for target in targets])
    return Run([Tensor.of(target) for target in targets], made)


def activations(content: bytes, graph: Graph, image: np.ndarray) -> dict[int, np.ndarray]:
    """Every activation of a float ``.tflite`` file for an image of the input's shape, float32, by tensor index."""
    with calibration.all_tensors_kept():
        interpreter = Interpreter(
            model_content=content, num_threads=os.cpu_count() or 1, experimental_preserve_all_tensors=True
        )
        interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    return {tensor: interpreter.get_tensor(tensor) for tensor in graph.activations()}


def latency(content: bytes, image: np.ndarray) -> float:
    """Median milliseconds of the interpreter alone, for an image as for :func:`run`."""
    interpreter = Interpreter(model_content=content, num_threads=os.cpu_count() or 1)
    interpreter.allocate_tensors()
    (source,) = interpreter.get_input_details()
    interpreter.set_tensor(source["index"], Tensor.of(source).stored(image))
    times = []
    for _ in range(_RUNS):
        start = time.perf_counter()
        interpreter.invoke()
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))
