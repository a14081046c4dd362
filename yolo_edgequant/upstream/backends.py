"""Inference on our files: the ``.tflite`` backends' ends, for int8, uint8 and float alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..runtime.interpreter import Tensor

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
    """``OpenVINOBackend.forward``, which finishes the work of a file of ours that leaves some to its reader."""
    made = original(self, im)
    return _finish(self, made, tuple(im.shape[2:4])) if "edgequant" in self.metadata else made


def tensorflow_forward(
    original: Callable[..., list[np.ndarray]], self: TensorFlowBackend, im: torch.Tensor
) -> list[np.ndarray]:
    """``TensorFlowBackend.forward``, by the metadata's contract if the file is ours and for the Edge TPU."""
    if self.format != "edgetpu" or "edgequant" not in self.metadata:
        return original(self, im)
    return _run(self, im, True)


def _run(self: LiteRTBackend | TensorFlowBackend, image: torch.Tensor, channels_last: bool) -> list[Any]:
    """Invoke the interpreter and return what upstream's postprocessing expects: boxes in pixels, maps NCHW."""
    values = image.cpu().numpy()
    height, width = values.shape[1:3] if channels_last else values.shape[2:4]
    source = self.input_details[0]
    self.interpreter.set_tensor(source["index"], Tensor.of(source).stored(values))
    self.interpreter.invoke()
    made = [Tensor.of(d).values(self.interpreter.get_tensor(d["index"])) for d in self.output_details]
    if channels_last:
        made = [y.transpose(0, 3, 1, 2) if y.ndim == 4 else y for y in made]
    return _finish(self, made, (height, width))


def _finish(self: BaseBackend, made: list[Any], size: tuple[int, int]) -> list[Any]:
    """From a file's outputs to what upstream expects: detections in pixels, chosen if the file is NMS-free; prototypes.

    Args:
        self: a backend with metadata of ours.
        made: float outputs, maps NCHW.
        size: (height, width) of the input.
    """
    import torch

    from ..heads import raw
    from ..heads.decode import pixel_factors

    contract = self.metadata["edgequant"]
    outputs = [torch.as_tensor(values) for values in made]
    if "raw" in contract:
        outputs = _decode(outputs, contract["raw"], size, corners="top_k" in contract)
    elif self.task not in {"detect", "segment", "pose", "obb"}:
        return made
    else:
        named = {output["name"]: values for output, values in zip(contract["outputs"], outputs, strict=True)}
        prototypes = [named.pop("prototypes")] if "prototypes" in named else []
        outputs = [torch.cat([named.pop("detections"), *named.values()], 1), *prototypes]
    first = outputs[0]
    if contract.get("boxes") != "pixels":
        keypoints = tuple(self.kpt_shape) if self.task == "pose" else None
        if self.end2end and "top_k" not in contract:
            first = first * torch.tensor(pixel_factors(size, 2, first.shape[2], keypoints))  # 2: score and class
        else:
            first = first * torch.tensor(pixel_factors(size, len(self.names), first.shape[1], keypoints)).view(1, -1, 1)
    if "top_k" in contract:
        first = raw.top_k(first, len(self.names), **contract["top_k"])
    return [first, *outputs[1:]]


def _decode(
    outputs: list[torch.Tensor], facts: dict[str, Any], size: tuple[int, int], corners: bool
) -> list[torch.Tensor]:
    """Normalised detections, and prototypes if there are any, from a raw file's outputs."""
    import torch

    from ..heads import raw
    from ..heads.decode import Grid

    parts: dict[str, list[torch.Tensor]] = {}
    for values, output in zip(outputs, facts["outputs"], strict=True):
        parts.setdefault(output["name"], []).append(values)
    prototypes = parts.pop("prototypes", [])
    if facts["order"] == "cells, channels":
        parts = {name: [values.transpose(1, 2) for values in levels] for name, levels in parts.items()}
    joined = {name: torch.cat(levels, 2) for name, levels in parts.items()}
    return [raw.detections(joined, Grid.of(size, facts["strides"]), facts, corners), *prototypes]
