"""Where an INT8 OpenVINO model rounds, for :mod:`.qat`, and its ranges from a model that was trained so."""

from __future__ import annotations

from collections.abc import Mapping

import nncf
import numpy as np
import openvino as ov
from torch import nn

from ..errors import RecipeError
from ..openvino.interpreter import results_of
from ..openvino.quantizer import activation_ranges, quantize, set_ranges
from ..options import Head
from .fake_quantization import Call, quantization_of
from .qat import Range, trained_ranges
from .tensor_matching import fingerprint, match, probe_image


class OpenVINOPoints:
    """See :class:`.qat.FilePoints`.

    Args:
        raw: the float and the quantized model without box decoding.
        int8: the same with box decoding.
        shape: (B, C, H, W) of the probe image.
    """

    def __init__(self, raw: tuple[ov.Model, ov.Model], int8: tuple[ov.Model, ov.Model], shape: tuple[int, ...]) -> None:
        self.fingerprints, self.ranges = _rounded(*raw, shape)
        self._int8 = _rounded(*int8, shape)

    def check(self, matched: Mapping[int, str], fingerprints: Mapping[int, np.ndarray]) -> None:
        """See :class:`.qat.FilePoints`.

        Raises:
            RecipeError: the file rounds what the model never computes.
        """
        missing = set(self.fingerprints) - set(matched.values())
        if missing:
            raise RecipeError(f"the file rounds '{min(missing)}', which the model's forward pass never computes")

    def fixed(self, calls: list[Call], fingerprints: Mapping[int, np.ndarray]) -> dict[int, Range | None]:
        """See :class:`.qat.FilePoints`; NNCF's ranges are all free."""
        return {}

    def decoding(self, fingerprints: Mapping[int, np.ndarray]) -> list[tuple[str, float, float]]:
        """See :class:`.qat.FilePoints`."""
        of_file, ranges = self._int8
        trained = match(of_file, fingerprints)
        return [("FakeQuantize", *ranges[name]) for name in of_file if name not in trained]


def trained_model(model: nn.Module, float_model: ov.Model, shape: tuple[int, ...], head: Head) -> ov.Model:
    """An OpenVINO model of a quantization-aware model with the ranges that were trained.

    Args:
        model: with its fake quantization.
        float_model: of it.
        shape: (B, C, H, W) of the input.
        head: arithmetic of box decoding.

    Raises:
        RecipeError: a point of this file was none in training.
    """
    image = probe_image(shape)
    quantized = quantize(float_model, nncf.Dataset([image]), head, 1, correct_bias=False)
    pixels = _inputs(float_model)
    names = [name for name in activation_ranges(quantized) if name not in pixels]
    fingerprints = {name: fingerprint(value) for name, value in results_of(float_model, names, image).items()}
    ranges = trained_ranges(model, shape, fingerprints)
    quantization = quantization_of(model)
    missing = [name for name in names if name not in ranges]
    if len(missing) == len(quantization.head):
        ranges |= {name: (low, high) for name, (_, low, high) in zip(missing, quantization.head, strict=True)}
    elif missing:
        raise RecipeError(
            f"tensor '{missing[0]}' of the openvino file has no trained range: the model was trained "
            f"quantization-aware for format={quantization.target!r}, whose files round at other points; train it with "
            "target='openvino', or leave box decoding out of the integers with head='float' or 'raw'"
        )
    set_ranges(quantized, ranges | dict.fromkeys(pixels, (0.0, 1.0)))
    return quantized


def _rounded(
    float_model: ov.Model, quantized: ov.Model, shape: tuple[int, ...]
) -> tuple[dict[str, np.ndarray], dict[str, Range]]:
    """Fingerprints and ranges of what a quantized model rounds, its input left out."""
    ranges = activation_ranges(quantized)
    values = results_of(float_model, list(ranges), probe_image(shape))
    pixels = _inputs(float_model)
    return {name: fingerprint(values[name]) for name in ranges if name not in pixels}, ranges


def _inputs(model: ov.Model) -> set[str]:
    return {node.get_friendly_name() for node in model.get_parameters()}
