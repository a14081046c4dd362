"""From a PyTorch model and images to the bytes of an INT8 ``.tflite`` file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from torch import nn

from .. import contract as contracts
from ..contract import Contract
from ..files import atomic_write
from ..log import LOGGER
from ..options import Corrections, Granularity
from ..processes import return_memory
from ..runtime.interpreter import Run
from ..targets.formats import Request
from ..tflite import calibrated, candidate_cells, equalization, interpreter, packing, score_alignment
from ..tflite.calibrated import CalibratedGraph
from ..tflite.conversion import to_tflite
from ..tflite.graph import Graph, Operation
from ..tflite.recipe import Rule
from ..verification.agreement import Agreement, compare
from ..verification.worst_tensor import worst_tensor


def convert(model: nn.Module, image: torch.Tensor, contract: Contract) -> tuple[Graph, Contract]:
    """The float graph of a model.

    Args:
        model: prepared by :func:`yolo_edgequant.upstream.export_head.prepare`.
        image: an example input, (B, C, H, W) float32.
        contract: of the file, the outputs in the model's order.

    Returns:
        The graph, and the contract with the outputs in the graph's order.
    """
    LOGGER.info("converting with litert-torch...")
    graph = Graph(to_tflite(model, image, contract.channels_last))
    equalize = contract.corrections in {Corrections.ALL, Corrections.EQUALIZATION}
    if equalize and contract.granularity == Granularity.TENSOR:
        graph = equalization.equalize(graph)
    if contract.outputs:
        contract = replace(contract, outputs=tuple(contract.outputs[position] for position in graph.output_order()))
    return graph, contract


def calibrate(graph: Graph, contract: Contract, request: Request, images: Iterable[np.ndarray]) -> CalibratedGraph:
    """Run the calibration images through a float graph, once.

    Args:
        graph, contract: from :func:`convert`.
        request: what is to be made.
        images: float32 from 0 to 1, of the graph's input's shape.

    Raises:
        DataError: no image, a wrong shape, or values that are not finite.
    """
    cells = _candidate_cells(graph, contract)
    if cells is None and contract.has_boxes and request.corrects(Corrections.CELLS):
        LOGGER.warning("the cells of this head were not found; ranges cover cells without objects, too.")
    aligned = cells is not None and request.corrects(Corrections.SCORES)
    compared = [op.outputs[0] for op in score_alignment.score_layers(graph, cells)] if aligned else []
    if not request.corrects(Corrections.CELLS):
        cells = None
    shown = track(images, f"calibrating ({request.ranges})", transient=True)
    coarse = request.granularity == Granularity.TENSOR  # else it gains little, and takes memory
    together = request.corrections == Corrections.ROUNDING or (request.corrects(Corrections.ROUNDING) and coarse)
    return calibrated.calibrate(graph, shown, logits(contract), cells, request.ranges, together, compared)


def logits(contract: Contract) -> list[int]:
    """Positions of the outputs of which the host will take the sigmoid."""
    return [
        position
        for position, output in enumerate(contract.outputs)
        if contract.raw is not None and output.name in {"scores", "visibility"}
    ]


def _candidate_cells(graph: Graph, contract: Contract) -> candidate_cells.CandidateCells | None:
    if not contract.has_boxes:
        return None
    if contract.raw is not None:
        return candidate_cells.of_raw(graph, contract.outputs)
    shape = graph.shape(graph.inputs[0])
    height, width = shape[1:3] if contract.channels_last else shape[2:4]
    levels = [(height // stride) * (width // stride) for stride in contract.strides]
    return candidate_cells.of_decoded(graph, levels, len(contract.names))


@dataclass(frozen=True)
class TFLiteBuild:
    """See :class:`.int8_build.Int8Build`; a model is the bytes of a file.

    Attributes:
        calibrated: the float graph.
        contract: of the file to be; its head, granularity and io are what :meth:`quantize` makes.
        facts: Ultralytics' metadata of the file.
        holdout: images held back from calibration.
        size: (height, width) of the input in pixels.
        calibration: the images that ranges are from, by number; none with trained ranges.
    """

    calibrated: CalibratedGraph
    contract: Contract
    facts: Mapping[str, Any]
    holdout: Sequence[np.ndarray]
    size: tuple[int, int]
    calibration: Sequence[np.ndarray] = ()

    @property
    def layers(self) -> list[str]:
        """See :class:`.int8_build.Int8Build`."""
        return list(self._operations)

    def quantize(self, in_float: Sequence[str] = ()) -> bytes:
        """See :class:`.int8_build.Int8Build`."""
        kept = tuple(op for name in in_float for op in self._operations[name])
        return self.with_rule(Rule(f"the {len(in_float)} most sensitive layers", True, kept) if kept else None)

    def corrected(self, model: bytes, in_float: Sequence[str] = ()) -> bytes:
        """See :class:`.int8_build.Int8Build`."""
        if self.contract.corrections not in {Corrections.ALL, Corrections.SCORES} or not self.calibration:
            return model
        cells = _candidate_cells(self.calibrated.graph, self.contract)
        if cells is None:
            return model
        LOGGER.info("comparing scores...")
        aligned = score_alignment.align(self.calibrated, cells, model, self.calibration)
        return model if aligned is None else replace(self, calibrated=aligned).quantize(in_float)

    def with_rule(self, in_float: Rule | None) -> bytes:
        """The INT8 model, with some operations in float.

        Raises:
            RecipeError: the rule matched nothing.
        """
        contract = self.contract
        correct_bias = contract.corrections in {Corrections.ALL, Corrections.BIAS}
        return self.calibrated.quantize(contract.head, contract.granularity, contract.io, correct_bias, in_float)

    def noise(self, alone: str) -> float:
        """See :class:`.int8_build.Int8Build`."""
        own = {op.index for op in self._operations[alone]}
        others = tuple(op for op in self.calibrated.graph.operations if op.index not in own)
        return self._compare(self._reference, self.with_rule(Rule("all other layers", True, others))).noise

    def compare(self, model: bytes) -> Agreement:
        """See :class:`.int8_build.Int8Build`."""
        return_memory()  # that quantizing took
        return self._compare(interpreter.run_in_turn(self.calibrated.graph.content, self.holdout), model)

    def _compare(self, reference: Run, model: bytes) -> Agreement:
        return compare(self.contract, self.size, reference, interpreter.run_in_turn(model, self.holdout))

    def worst_tensor(self, model: bytes) -> tuple[str, float]:
        """See :class:`.int8_build.Int8Build`."""
        graph, image = self.calibrated.graph, self.holdout[0]
        values = (interpreter.values(part, image) for part in (graph, Graph(model)))
        return worst_tensor(interpreter.steps(graph), *values)

    def save(self, model: bytes | None, folder: Path) -> Path:
        """See :class:`.int8_build.Int8Build`."""
        path = folder / "model.tflite"
        content = packing.constants_inside(self.calibrated.graph.content) if model is None else model
        write(path, content, self.contract, self.facts)
        return path

    @cached_property
    def _reference(self) -> Run:
        """Kept, as the noise of every layer is measured against it; a single comparison does without."""
        return interpreter.run(self.calibrated.graph.content, self.holdout)

    @cached_property
    def _operations(self) -> dict[str, tuple[Operation, ...]]:
        return self.calibrated.graph.layers()


def write(path: Path, content: bytes, contract: Contract, facts: Mapping[str, Any]) -> None:
    """Write a ``.tflite`` file with its metadata, its outputs called what the contract calls them.

    Args:
        path: of the file.
        content: the model, its constants inside the FlatBuffer.
        contract: of the file.
        facts: Ultralytics' metadata.

    Raises:
        ConversionError: old interpreters could not read the file.
        OutputError: it cannot be written.
    """
    packing.check_inside(content)
    if contract.outputs:
        content = packing.with_output_names(content, [output.title for output in contract.outputs])
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)
        contracts.append(temporary, contract, facts)
