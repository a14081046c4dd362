"""Quantization-aware training: where a model has to round as its INT8 file will, and from what ranges it starts.

A model that is trained quantization-aware has its batch-norm folded into its convolutions, as its INT8 file will have,
and a :class:`.fake_quantization.FakeQuantization` as a submodule, so that both are saved with it. Points are found by
comparing the values of the file's graph with those of the model's forward pass; see :mod:`.tflite_points` and
:mod:`.openvino_points`, which say the same of either family.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from ..errors import RecipeError, UnsupportedModelError
from ..options import Granularity
from ..targets.formats import Format
from .fake_quantization import BiasCorrection, Call, FakeQuantization, attach, quantization_of
from .functions import WEIGHTED
from .tensor_matching import match
from .tracing import fuse_batch_norm, trace, tracing

#: Formats whose points a model can be trained for; files of the other ``.tflite`` formats have the same points.
TARGETS = (Format.TFLITE, Format.LITERT, Format.OPENVINO)

Range = tuple[float, float]


class FilePoints(Protocol):
    """Where an INT8 file rounds what it computes.

    Attributes:
        fingerprints: of each tensor that is rounded, for the probe image.
        ranges: of each of these.
    """

    fingerprints: Mapping[Hashable, np.ndarray]
    ranges: Mapping[Hashable, Range]

    def check(self, matched: Mapping[int, Hashable], fingerprints: Mapping[int, np.ndarray]) -> None:
        """Refuse a model that does not compute what the file rounds.

        Args:
            matched: the file's tensor for each number of a call.
            fingerprints: of all calls.

        Raises:
            UnsupportedModelError: something in the file is nothing in the model.
        """

    def fixed(self, calls: list[Call], fingerprints: Mapping[int, np.ndarray]) -> dict[int, Range | None]:
        """Which of the calls with a point have ranges that training must leave, and these if they are not measured.

        Args:
            calls: of the forward pass.
            fingerprints: of those with a point, by number.
        """

    def decoding(self, fingerprints: Mapping[int, np.ndarray]) -> list[tuple[str, float, float]]:
        """What box decoding is rounded with where it is in integers: kinds of operations, and ranges."""


def find_points(
    module: nn.Module, file: FilePoints, target: Format, granularity: Granularity, shape: tuple[int, ...]
) -> FakeQuantization:
    """The points of a model's INT8 file, with the ranges that calibration finds best to start from.

    Args:
        module: not fused.
        file: where the file rounds.
        target: one of :data:`TARGETS`.
        granularity: of the weights' steps.
        shape: (B, C, H, W) of the probe image.

    Raises:
        UnsupportedModelError: the model's forward pass differs between training and inference before its head decodes,
            or does not compute what the file rounds.
    """
    fused = fuse_batch_norm(copy.deepcopy(module).float().cpu())
    calls, fingerprints = trace(fused, shape)
    if trace(fused, shape, training=False)[0] != calls:
        raise UnsupportedModelError(
            f"{type(module).__name__} computes in another order in training than in inference, so the points of its "
            "file cannot be told apart"
        )
    matched = match(fingerprints, file.fingerprints)
    try:
        file.check(matched, fingerprints)
    except RecipeError as error:
        raise UnsupportedModelError(
            f"a {type(module).__name__} cannot be trained quantization-aware for {target.value!r}, whose files compute "
            f"something else than its training: {error}"
        ) from error
    points = {number: file.ranges[tensor] for number, tensor in matched.items()}
    fixed = file.fixed(calls, {number: fingerprints[number] for number in points})
    points |= {number: given for number, given in fixed.items() if given is not None}
    layers = {number for number, call in enumerate(calls) if call.name in WEIGHTED}
    return FakeQuantization(points, fixed, layers, granularity, target, file.decoding(fingerprints))


def with_fake_quantization(model: Any, quantization: FakeQuantization, images: torch.Tensor) -> Any:
    """A copy of a ``YOLO``, on the CPU, that computes with a fake quantization and biases corrected for it.

    Args:
        model: not fused.
        quantization: its points.
        images: (B, C, H, W) float32, 0 to 1, to correct the biases with.
    """
    model = copy.deepcopy(model)
    module = fuse_batch_norm(model.model.float().cpu()).train()
    with torch.no_grad(), tracing(module, BiasCorrection(quantization)):
        module(images)
    attach(module, quantization)
    return model


def trained_ranges(
    model: nn.Module, shape: tuple[int, ...], tensors: Mapping[Hashable, np.ndarray]
) -> dict[Hashable, Range]:
    """The trained range of each of a file's tensors that is a point of the model's fake quantization.

    Args:
        model: quantization-aware.
        shape: (B, C, H, W) of the probe image.
        tensors: fingerprints for the probe image.
    """
    model = copy.deepcopy(model).float().cpu()
    _, fingerprints = trace(model, shape)
    ranges = quantization_of(model).ranges()
    points = match(tensors, {number: fingerprints[number] for number in ranges})
    return {tensor: ranges[number] for tensor, number in points.items()}
