"""A request applied to a model that is about to be exported: its head's arithmetic, and the contract of the file."""

from __future__ import annotations

import copy
import types
from collections.abc import Mapping
from typing import Any

from torch import nn
from ultralytics.nn.modules import C2f, Detect

from ..contract import Contract, Output, TopK, Trained
from ..options import Head, Outputs
from ..targets.formats import Request
from . import cells_first, compat, heads
from .blocks import swapped


def prepare(
    model: nn.Module, request: Request, size: tuple[int, int], facts: Mapping[str, Any], trained: Trained | None = None
) -> Contract:
    """Give the head of a model the arithmetic of a request, in place.

    Args:
        model: as Ultralytics prepares it for an export.
        request: what is to be made.
        size: (height, width) of the input in pixels.
        facts: Ultralytics' metadata of the file: ``task``, ``names``, ``stride``, ``end2end``, ``args``, ``kpt_shape``.
        trained: what the model was trained quantization-aware for.

    Returns:
        What the file will hold, the outputs in the order in which the model gives them.
    """
    kpt_shape = facts.get("kpt_shape")
    values: dict[str, Any] = {
        "task": facts["task"],
        "names": dict(facts["names"]),
        "stride": int(facts["stride"]),
        "end2end": bool(facts.get("end2end", getattr(model, "end2end", False))),
        "nms": bool(facts.get("args", {}).get("nms")),
        "kpt_shape": None if kpt_shape is None else tuple(int(n) for n in kpt_shape),
        "head": request.head,
        "granularity": request.granularity,
        "ranges": request.ranges if trained is None else "trained",
        "corrections": request.corrections if trained is None else "none",
        "io": request.io,
        "channels_last": request.profile.channels_last,
        "activation": swapped(model),
        "target": request.target,
        "trained": trained,
    }
    head = heads.detection_head(model)
    return Contract(**values if head is None else values | _prepared(model, head, request, size))


def _prepared(model: nn.Module, head: nn.Module, request: Request, size: tuple[int, int]) -> dict[str, Any]:
    """Change the head, and say what it gives then."""
    compat.complete_head(head)
    heads.fold_texts(model)
    openvino = not request.profile.is_tflite
    # upstream reads NMS-free output as pixels from NCHW files and as shares of the input from NHWC files
    in_pixels = openvino or (head.end2end and request.head == Head.FLOAT and not request.profile.channels_last)
    strides = tuple(int(stride) for stride in head.stride)
    top_k = None
    if head.end2end and request.head != Head.FLOAT:
        top_k = TopK(head.max_det, compat.chooses_among_all_classes(head))
    if request.head == Head.RAW:
        outputs, raw = heads.output_raw(head, request.outputs, is_cells_first=not openvino)
        return {"outputs": outputs, "strides": strides, "raw": raw, "top_k": top_k}
    if openvino:
        heads.dfl_as_sum(head)
    names = ["detections", "prototypes"] if heads.has_masks(head) else ["detections"]
    integer, separate = request.head == Head.INT8, request.outputs == Outputs.SEPARATE
    # sine and cosine are no operations of 8-bit files; where the reader knows of it, it turns the boxes
    unturned = integer and heads.is_rotated(head) and not openvino and (separate or not request.profile.separate)
    if not in_pixels and not openvino and cells_first.is_possible(head):
        names = cells_first.decode(head, size, not unturned, separate=separate, integer=integer)
    else:
        if integer:
            heads.skip_top_k(head)
            if separate:
                names = heads.separate_outputs(head)
        if integer or not in_pixels:
            heads.decode_in_unit_square(head, size, turn=not unturned)
    return {
        "outputs": tuple(Output(name) for name in names),
        "normalised": not in_pixels,
        "unturned": unturned,
        "strides": strides,
        "top_k": top_k,
    }


def as_exported(model: nn.Module, size: tuple[int, int], nms_free: bool = False) -> tuple[nn.Module, dict[str, Any]]:
    """A copy of a model that detects as Ultralytics' exporter prepares it, and the facts of its metadata.

    Args:
        model: not fused.
        size: (height, width) of the input in pixels.
        nms_free: keep the NMS-free branch of an end-to-end model instead of the one for NMS.
    """
    model = copy.deepcopy(model).float().cpu().eval().requires_grad_(False)
    if hasattr(model, "end2end"):
        model.end2end = nms_free
    model = model.fuse(verbose=False)
    for module in model.modules():
        if isinstance(module, Detect):
            module.export, module.format, module.dynamic, module.shape, module.xyxy = True, "litert", False, None, None
            module.max_det = min(300, sum((size[0] // int(s)) * (size[1] // int(s)) for s in model.stride))
        elif isinstance(module, C2f):
            module.forward = types.MethodType(type(module).forward_split, module)
    facts: dict[str, Any] = {
        "task": model.task,
        "names": model.names,
        "stride": int(max(model.stride)),
        "end2end": nms_free,
        "args": {},
    }
    if model.task == "pose":
        facts["kpt_shape"] = model.model[-1].kpt_shape
    return model, facts
