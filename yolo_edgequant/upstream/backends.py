"""Inference on our files: the ``.tflite`` backends' ends, for int8, uint8 and float alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from ultralytics.nn.backends import LiteRTBackend, OpenVINOBackend, TensorFlowBackend
    from ultralytics.nn.backends.base import BaseBackend


def litert_forward(
    original: Callable[..., list[np.ndarray]], self: LiteRTBackend, im: torch.Tensor
) -> list[np.ndarray]:
    """``LiteRTBackend.forward``, by the contract in the file's metadata if the file is ours."""
    if "edgequant" not in self.metadata or self.intel:
        return original(self, im)
    return _run(self, im.permute(0, 2, 3, 1) if self.nhwc else im, self.nhwc)


def openvino_forward(original: Callable[..., list[Any]], self: OpenVINOBackend, im: torch.Tensor) -> list[Any]:
    """``OpenVINOBackend.forward``, which decodes the outputs of a raw file of ours."""
    made = original(self, im)
    facts = self.metadata.get("edgequant", {}).get("raw")
    return made if facts is None else _decode(self, made, facts, tuple(im.shape[2:4]))


def tensorflow_forward(
    original: Callable[..., list[np.ndarray]], self: TensorFlowBackend, im: torch.Tensor
) -> list[np.ndarray]:
    """``TensorFlowBackend.forward``, by the metadata's contract if the file is ours and for the Edge TPU."""
    if self.format != "edgetpu" or "edgequant" not in self.metadata:
        return original(self, im)
    return _run(self, im, True)


def quantise(values: np.ndarray, details: dict[str, Any]) -> np.ndarray:
    """Float32 values to the type of an interpreter's tensor, rounded; float tensors get them as they are."""
    if details["dtype"] == np.float32:
        return np.ascontiguousarray(values, np.float32)
    scale, zero_point = details["quantization"]
    limits = np.iinfo(details["dtype"])
    return np.clip(np.rint(values / scale) + zero_point, limits.min, limits.max).astype(details["dtype"])


def dequantise(values: np.ndarray, details: dict[str, Any]) -> np.ndarray:
    """An interpreter's tensor as float32 values."""
    if details["dtype"] == np.float32:
        return values
    scale, zero_point = details["quantization"]
    return (values.astype(np.float32) - zero_point) * np.float32(scale)


def _run(self: LiteRTBackend | TensorFlowBackend, image: torch.Tensor, channels_last: bool) -> list[Any]:
    """Invoke the interpreter and return what upstream's postprocessing expects: boxes in pixels, maps NCHW."""
    values = image.cpu().numpy()
    height, width = values.shape[1:3] if channels_last else values.shape[2:4]
    source = self.input_details[0]
    self.interpreter.set_tensor(source["index"], quantise(values, source))
    self.interpreter.invoke()
    made = [dequantise(self.interpreter.get_tensor(d["index"]), d) for d in self.output_details]
    if channels_last:
        made = [y.transpose(0, 3, 1, 2) if y.ndim == 4 else y for y in made]
    facts = self.metadata["edgequant"].get("raw")
    if facts is not None:
        return _decode(self, made, facts, (height, width))
    made.sort(key=lambda y: y.ndim)  # detections before prototypes
    if self.task in {"detect", "segment", "pose", "obb"}:
        made[0] *= _factors(self, made[0].shape[1], (height, width))
    return made


def _decode(self: BaseBackend, made: list[np.ndarray], facts: dict[str, Any], size: tuple[int, int]) -> list[Any]:
    """Detections in pixels, and prototypes if there are any, from a raw file's outputs."""
    import torch

    from ..heads import raw
    from ..heads.decode import Grid

    parts: dict[str, list[torch.Tensor]] = {}
    for values, output in zip(made, facts["outputs"], strict=True):
        parts.setdefault(output["name"], []).append(torch.from_numpy(values))
    prototypes = parts.pop("prototypes", [])
    if facts["order"] == "cells, channels":
        parts = {name: [values.transpose(1, 2) for values in levels] for name, levels in parts.items()}
    joined = {name: torch.cat(levels, 2) for name, levels in parts.items()}
    detections = raw.detections(joined, Grid.of(size, facts["strides"]), facts)
    return [detections * torch.from_numpy(_factors(self, detections.shape[1], size)), *prototypes]


def _factors(self: BaseBackend, channels: int, size: tuple[int, int]) -> np.ndarray:
    from ..heads.decode import pixel_factors

    keypoints = tuple(self.kpt_shape) if self.task == "pose" else None
    return np.array(pixel_factors(size, len(self.names), channels, keypoints), np.float32).reshape(1, -1, 1)
