"""From a float OpenVINO model and images to an INT8 one."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import nncf
import numpy as np
import openvino as ov
import torch
from rich.progress import track
from torch import nn

from .. import contract as contracts
from ..contract import Contract
from ..decoding.in_torch import ToPixels
from ..errors import DataError
from ..level_shift import CandidateLogits
from ..log import LOGGER
from ..openvino import graph, interpreter, quantizer, ranges, score_alignment
from ..openvino.bias_correction import correct_biases
from ..openvino.calibration import collect
from ..openvino.conversion import to_openvino
from ..options import Corrections, Head, RangeEstimator
from ..targets.devices import device
from ..verification.agreement import Agreement, compare
from ..verification.worst_tensor import worst_tensor


def convert(model: nn.Module, image: torch.Tensor, contract: Contract, dynamic: bool = False) -> ov.Model:
    """The float OpenVINO model of a model.

    Args:
        model: prepared by :func:`yolo_edgequant.upstream.export_head.prepare`.
        image: an example input, (B, C, H, W) float32.
        contract: of the file.
        dynamic: let the input have any shape.
    """
    if contract.head == Head.INT8 and contract.has_boxes:
        size = (int(image.shape[2]), int(image.shape[3]))
        model = ToPixels(model, size, len(contract.names), contract.kpt_shape)
    LOGGER.info(f"converting with openvino {ov.__version__}...")
    return to_openvino(model, image, dynamic)


def calibrate(
    float_model: ov.Model, contract: Contract, images: Sized
) -> tuple[ov.Model, Mapping[str, CandidateLogits]]:
    """Quantize a model on the calibration images, run once each.

    NNCF decides where the model rounds, and with ``ranges="nncf"`` all else, too.

    Args:
        float_model: from :func:`convert`.
        contract: of the file.
        images: (B, 3, H, W) float32 from 0 to 1.

    Returns:
        The INT8 model, and the float model's class logits in the images by name of the layer, if they are to be
        compared.

    Raises:
        DataError: there are no images, or the model gives values that are not finite.
        RecipeError: the scope of box decoding matched nothing.
    """
    target = None if contract.target is None else device(contract.target).nncf
    correct_bias = contract.corrections in {Corrections.ALL, Corrections.BIAS}
    if contract.ranges == RangeEstimator.NNCF:
        count = len(images)
        return quantizer.quantize(float_model, nncf.Dataset(images), contract.head, count, correct_bias, target), {}
    pending = iter(images)
    first = list(itertools.islice(pending, 1))
    if not first:
        raise DataError("the calibration set is empty: pass data= with at least one image (100 or more advised)")
    quantized = quantizer.quantize(float_model, nncf.Dataset(first), contract.head, 1, False, target)
    shown = track(itertools.chain(first, pending), f"calibrating ({contract.ranges})", len(images), transient=True)
    aligned = contract.has_boxes and contract.corrections in {Corrections.ALL, Corrections.SCORES}
    calibration = collect(float_model, quantized, shown, _score_layers(float_model, contract) if aligned else ())
    decoding = set(graph.decoding(float_model)) if contract.has_boxes else set()
    quantizer.set_ranges(quantized, ranges.choose(quantized, calibration.statistics, decoding))
    if correct_bias:
        correct_biases(quantized, float_model, calibration.means)
    return quantized, calibration.candidates


def _score_layers(float_model: ov.Model, contract: Contract) -> list[str]:
    """See :func:`..openvino.score_alignment.score_layers`."""
    outputs = [position for position, output in enumerate(contract.outputs) if output.name == "scores"]
    return score_alignment.score_layers(float_model, len(contract.names), outputs)


@dataclass(frozen=True)
class OpenVINOBuild:
    """See :class:`.int8_build.Int8Build`.

    Attributes:
        float_model, quantized: of the same operations.
        contract: of the file to be.
        facts: Ultralytics' metadata of the file.
        holdout: images to compare the two on, (1, 3, H, W) float32 each.
        size: (height, width) of the input in pixels.
        calibration: the images that ranges are from, by number, (B, 3, H, W) float32.
        logits: the float model's in these images, by name of the layer; none if they are not to be compared.
    """

    float_model: ov.Model
    quantized: ov.Model
    contract: Contract
    facts: Mapping[str, Any]
    holdout: Sequence[np.ndarray]
    size: tuple[int, int]
    calibration: Sequence[np.ndarray] = ()
    logits: Mapping[str, CandidateLogits] = field(default_factory=dict)

    @cached_property
    def layers(self) -> list[str]:
        """See :class:`.int8_build.Int8Build`."""
        return quantizer.quantized_layers(self.quantized, self.float_model)

    def quantize(self, in_float: Sequence[str] = ()) -> ov.Model:
        """See :class:`.int8_build.Int8Build`."""
        return quantizer.in_float(self.quantized, self.float_model, in_float) if in_float else self.quantized

    def corrected(self, model: ov.Model, in_float: Sequence[str] = ()) -> ov.Model:
        """See :class:`.int8_build.Int8Build`."""
        if not self.logits:
            return model
        LOGGER.info("comparing scores...")
        return score_alignment.align(model, self.logits, self.calibration)

    def noise(self, alone: str) -> float:
        """See :class:`.int8_build.Int8Build`."""
        return self.compare(self.quantize([name for name in self.layers if name != alone])).noise

    def compare(self, model: ov.Model) -> Agreement:
        """See :class:`.int8_build.Int8Build`."""
        return compare(self.contract, self.size, self._reference, interpreter.run(model, self.holdout))

    def worst_tensor(self, model: ov.Model) -> tuple[str, float]:
        """See :class:`.int8_build.Int8Build`."""
        values = (interpreter.values(part, self.holdout[0]) for part in (self.float_model, model))
        return worst_tensor(interpreter.steps(self.float_model), *values)

    def save(self, model: ov.Model | None, folder: Path) -> Path:
        """See :class:`.int8_build.Int8Build`."""
        place = folder / "model_openvino_model"
        place.mkdir()
        ov.save_model(self.float_model if model is None else model, place / "model.xml", False)
        metadata = contracts.beside(place, self.contract, self.facts)
        (place / "metadata.yaml").write_text(json.dumps(metadata))  # what Ultralytics reads; JSON is YAML
        return place

    @cached_property
    def _reference(self) -> Any:
        return interpreter.run(self.float_model, self.holdout, exact=True)
