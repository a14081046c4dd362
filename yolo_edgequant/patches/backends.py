"""Inference on our files: what they say of themselves, and their ends, for int8, uint8 and float alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..contract import Contract
from ..decoding import raw
from ..decoding.in_torch import Grid, pixel_factors, turned
from ..errors import ContractError
from ..runtime.interpreter import Tensor
from ..upstream import compat

if TYPE_CHECKING:  # not all of them are in all releases
    from ultralytics.nn.backends import LiteRTBackend, OpenVINOBackend, TensorFlowBackend
    from ultralytics.nn.backends.base import BaseBackend


def apply_metadata(original: Callable[..., None], self: BaseBackend, metadata: dict[str, Any] | None) -> None:
    """``BaseBackend.apply_metadata``, which takes the contract of a file of ours from its metadata.

    Raises:
        ContractError: it is damaged, or of a later version.
    """
    if not metadata or "edgequant" not in metadata:
        original(self, metadata)
        return
    contract = Contract.of(metadata)
    try:
        original(self, metadata | {"stride": contract.stride})  # a text in files that only we read
    except Exception as error:  # upstream converts what it finds there unseen
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise ContractError(f"Ultralytics' own keys in the file's metadata are damaged ({what[:200]})") from error
    self.edgequant = contract


def litert_forward(
    original: Callable[..., list[np.ndarray]], self: LiteRTBackend, im: torch.Tensor
) -> list[np.ndarray]:
    """``LiteRTBackend.forward``, by the contract if the file is ours."""
    if contract_of(self) is None or compat.runs_on_intel_npu(self):
        return original(self, im)
    return _run(self, im.permute(0, 2, 3, 1) if self.nhwc else im, self.nhwc)


def openvino_forward(original: Callable[..., list[Any]], self: OpenVINOBackend, im: torch.Tensor) -> list[Any]:
    """``OpenVINOBackend.forward``, which finishes the work of a file of ours that leaves some to its reader."""
    outputs = original(self, im)
    contract = contract_of(self)
    return outputs if contract is None else finish(contract, outputs, tuple(im.shape[2:4]))


def tensorflow_forward(
    original: Callable[..., list[np.ndarray]], self: TensorFlowBackend, im: torch.Tensor
) -> list[np.ndarray]:
    """``TensorFlowBackend.forward``, by the contract if the file is ours and a ``.tflite``.

    Args:
        im: (1, H, W, 3), whatever the file takes.
    """
    contract = contract_of(self)
    if self.format not in {"edgetpu", "tflite"} or contract is None:
        return original(self, im)
    return _run(self, im if contract.channels_last else im.permute(0, 3, 1, 2), contract.channels_last)


def tensorflow_load(original: Callable[..., None], self: TensorFlowBackend, weight: Any) -> None:
    """``TensorFlowBackend.load_model``, which finds LiteRT's interpreter, too."""
    if self.format != "tflite":
        original(self, weight)
        return
    with compat.interpreter_for_tflite():
        original(self, weight)


def contract_of(backend: BaseBackend) -> Contract | None:
    """The contract of the file that a backend has loaded; None if the file is not ours."""
    contract = getattr(backend, "edgequant", None)
    return contract if isinstance(contract, Contract) else None


def _run(self: LiteRTBackend | TensorFlowBackend, image: torch.Tensor, channels_last: bool) -> list[Any]:
    """Invoke the interpreter and return what upstream's postprocessing expects: boxes in pixels, maps NCHW."""
    values = image.cpu().numpy()
    size = values.shape[1:3] if channels_last else values.shape[2:4]
    source = self.input_details[0]
    self.interpreter.set_tensor(source["index"], Tensor.of(source).stored(values))
    self.interpreter.invoke()
    outputs = [Tensor.of(d).values(self.interpreter.get_tensor(d["index"])) for d in self.output_details]
    return finish(contract_of(self), maps_first(outputs) if channels_last else outputs, size)


def maps_first(outputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs of an NHWC file with the channels of maps before their cells."""
    return [values.transpose(0, 3, 1, 2) if values.ndim == 4 else values for values in outputs]


def finish(contract: Contract, outputs: Sequence[Any], size: tuple[int, int]) -> list[Any]:
    """From a file's outputs to what upstream expects: detections in pixels, chosen if the file is NMS-free; prototypes.

    Args:
        contract: of the file.
        outputs: float, maps NCHW.
        size: (height, width) of the input.
    """
    if not contract.has_boxes:
        return list(outputs)
    tensors = [torch.as_tensor(values) for values in outputs]
    first, *others = _decoded(contract, tensors, size) if contract.raw is not None else _joined(contract, tensors, size)
    classes = len(contract.names)
    if contract.raw is not None or contract.normalised:
        if contract.is_final and contract.top_k is None:
            first = first * torch.tensor(pixel_factors(size, 2, first.shape[2], contract.kpt_shape))  # score and class
        else:
            factors = torch.tensor(pixel_factors(size, classes, first.shape[1], contract.kpt_shape))
            first = first * factors.view(1, -1, 1)
    if contract.top_k is not None:
        first = raw.top_k(first, classes, contract.top_k)
    return [first, *others]


def _joined(contract: Contract, outputs: list[torch.Tensor], size: tuple[int, int]) -> list[torch.Tensor]:
    """Detections in one tensor, and prototypes if there are any, from a decoded file's outputs."""
    named = {output.name: values for output, values in zip(contract.outputs, outputs, strict=True)}
    prototypes = [named.pop("prototypes")] if "prototypes" in named else []
    detections = torch.cat([named.pop("detections"), *named.values()], 1)
    if contract.unturned:
        boxes = turned(detections[:, :4], detections[:, -1:], Grid.of(size, list(contract.strides)))
        detections = torch.cat((boxes, detections[:, 4:]), 1)
    return [detections, *prototypes]


def _decoded(contract: Contract, outputs: list[torch.Tensor], size: tuple[int, int]) -> list[torch.Tensor]:
    """Normalised detections, and prototypes if there are any, from a raw file's outputs."""
    parts: dict[str, list[torch.Tensor]] = {}
    for values, output in zip(outputs, contract.outputs, strict=True):
        parts.setdefault(output.name, []).append(values)
    prototypes = parts.pop("prototypes", [])
    if contract.raw.arrangement == "grid":
        parts = {name: [values.flatten(2) for values in levels] for name, levels in parts.items()}
    elif contract.raw.cells_first:
        parts = {name: [values.transpose(1, 2) for values in levels] for name, levels in parts.items()}
    joined = {name: torch.cat(levels, 2) for name, levels in parts.items()}
    grid = Grid.of(size, list(contract.strides))
    corners = contract.top_k is not None
    return [raw.detections(joined, grid, contract.raw, contract.kpt_shape, corners), *prototypes]
