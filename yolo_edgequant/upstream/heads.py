"""Which of Ultralytics' heads decode boxes, and how each of them does."""

from __future__ import annotations

import copy
import types
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from ultralytics.nn.modules import (
    OBB,
    Detect,
    Pose,
    Segment,
    WorldDetect,
    YOLOEDetect,
    YOLOESegment,
)
from ultralytics.nn.modules.block import BNContrastiveHead, ContrastiveHead

from ..contract import Output, Raw
from ..decoding import in_torch
from ..errors import UnsupportedModelError
from ..options import Outputs
from . import compat

_Pose26, _Proto26 = compat.module_class("Pose26"), compat.module_class("Proto26")
_WITHOUT_BOXES = tuple(
    kind for name in ("Classify", "SemanticSegment", "Depth") if isinstance(kind := compat.module_class(name), type)
)
_EXTRAS = {"mask_coefficient": (Segment, YOLOESegment), "angle": (OBB,), "kpts": (Pose,)}


def detection_head(model: nn.Module) -> nn.Module | None:
    """The model's head if it decodes boxes on a grid, None for the other tasks (classify, semantic, depth).

    Raises:
        UnsupportedModelError: the model is not a YOLO model, or ends in a head unknown here.
    """
    layers = getattr(model, "model", None)
    if not isinstance(layers, nn.Sequential) or not hasattr(model, "yaml"):
        raise UnsupportedModelError(
            f"{type(model).__name__} is not an Ultralytics YOLO model; INT8 export needs one loaded by YOLO(...)"
        )
    head = layers[-1]
    if isinstance(head, Detect):
        return head
    if isinstance(head, _WITHOUT_BOXES):
        return None
    raise UnsupportedModelError(
        f"the head {type(head).__name__} is unknown to yolo_edgequant; call yolo_edgequant.disable() before export() "
        "for Ultralytics' own INT8 export"
    )


def is_rotated(head: nn.Module) -> bool:
    """True for heads whose boxes have an angle."""
    return isinstance(head, OBB)


def compares_with_texts(head: nn.Module) -> bool:
    """True for the head of the original YOLO-World, whose scores are no outputs of convolutions."""
    return isinstance(head, WorldDetect) and any(isinstance(level, ContrastiveHead) for level in head.cv4)


def decode_in_unit_square(head: nn.Module, size: tuple[int, int], turn: bool = True) -> None:
    """Make a detection head, on this instance, give boxes and keypoints as shares of the image's sides.

    Its class stays as it is.

    Args:
        head: with ``dfl``, ``stride`` and, for poses, ``kpt_shape``.
        size: (height, width) of the input in pixels.
        turn: give rotated boxes; else as if their angle were 0, for a reader that turns them.
    """
    grid = in_torch.Grid.of(size, [int(s) for s in head.stride], head.stride.device)
    rotated, corners = is_rotated(head) and turn, (head.end2end or head.xyxy) and not is_rotated(head)

    def decode_boxes(self: nn.Module, x: dict[str, torch.Tensor]) -> torch.Tensor:
        distances = self.dfl(x["boxes"])
        if rotated:
            return in_torch.rotated_boxes(distances, x["angle"], grid)
        return in_torch.boxes(distances, grid, corners)

    head._get_decode_boxes = types.MethodType(decode_boxes, head)
    keypoint = keypoint_scale(head)
    if keypoint is not None:

        def decode_keypoints(self: nn.Module, raw: torch.Tensor) -> torch.Tensor:
            return in_torch.keypoints(raw, tuple(self.kpt_shape), grid, *keypoint)

        head.kpts_decode = types.MethodType(decode_keypoints, head)


def dfl_as_sum(head: nn.Module) -> None:
    """Let a detection head, on this instance, take the expectation of DFL as a sum, not as a convolution.

    On CPUs with bfloat16 OpenVINO computes everything before the last convolution in it, and of DFL's probabilities
    that leaves three digits.
    """

    def forward(self: nn.Module, raw: torch.Tensor) -> torch.Tensor:
        return in_torch.distances(raw, self.c1)

    if hasattr(head.dfl, "c1"):  # else there are no bins, and nothing to take
        head.dfl.forward = types.MethodType(forward, head.dfl)


def has_masks(head: nn.Module) -> bool:
    """True for heads whose files give mask prototypes, too."""
    return extra_of(head) == "mask_coefficient"


def extra_of(head: nn.Module) -> str | None:
    """What a head gives for each cell besides box and scores, by upstream's name; None for detection."""
    return next((name for name, kinds in _EXTRAS.items() if isinstance(head, kinds)), None)


def skip_top_k(head: nn.Module) -> None:
    """Make an end-to-end head, on this instance, give (B, 4 + nc + extra, A); the host chooses the best.

    Class indices, up to 79, and scores in one 8-bit tensor would leave neither.
    """
    head.postprocess = types.MethodType(lambda self, detections: detections.permute(0, 2, 1), head)


def separate_outputs(head: nn.Module) -> list[str]:
    """Make a head, on this instance, give mask coefficients, angles or keypoints as an output of their own.

    In one 8-bit tensor they would share a scale with boxes and scores, which lie between 0 and 1.

    Returns:
        The names of the model's outputs, in order.
    """
    masks, apart = has_masks(head), extra_of(head)
    if apart is None or hasattr(head, "lrpc"):
        return ["detections", "prototypes"] if masks else ["detections"]

    def forward(self: nn.Module, x: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        raw = self.forward_head(x, **(self.one2one if self.end2end else self.one2many))
        detections = Detect._inference(self, raw)
        outputs = (detections, self.kpts_decode(raw[apart]) if apart == "kpts" else raw[apart])
        return (*outputs, prototypes(self, x)) if masks else outputs

    head.forward = types.MethodType(forward, head)
    return ["detections", apart, "prototypes"] if masks else ["detections", apart]


def prototypes(head: nn.Module, x: list[torch.Tensor]) -> torch.Tensor:
    """Mask prototypes (B, C, h, w), from the first map or, in YOLO26, from all of them."""
    maps = head.proto(x[: head.nl] if isinstance(head.proto, _Proto26) else x[0])
    return maps[0] if isinstance(maps, tuple) else maps


def fold_texts(model: nn.Module) -> None:
    """Make the comparison with texts in a YOLO-World v2 head the convolution that it is once the texts are fixed.

    With a feature ``W x + b``, its batch normalisation and the unit vectors ``t`` of the texts, the logits are
    ``exp(scale) t norm(W x + b) + bias``: linear in ``x``.
    """
    head = model.model[-1]
    if not isinstance(head, WorldDetect) or not all(isinstance(level, BNContrastiveHead) for level in head.cv4):
        return
    texts = nn.functional.normalize(model.txt_feats[0], dim=-1).to(head.cv3[0][-1].weight)
    for features, comparison in zip(head.cv3, head.cv4, strict=True):
        normalised = nn.utils.fusion.fuse_conv_bn_eval(features[-1], comparison.norm)
        scaled = texts * comparison.logit_scale.exp()
        folded = nn.Conv2d(normalised.in_channels, len(texts), 1).requires_grad_(False)
        folded.weight.copy_(torch.einsum("kc,cixy->kixy", scaled, normalised.weight))
        folded.bias.copy_(scaled @ normalised.bias + comparison.bias)
        features[-1] = folded
    head.nc = len(texts)
    head.forward = types.MethodType(lambda self, x, texts: Detect.forward(self, x), head)


def output_raw(head: nn.Module, arrangement: Outputs, is_cells_first: bool) -> tuple[tuple[Output, ...], Raw]:
    """Make a detection head, on this instance, give its convolutions' outputs.

    Args:
        head: from :func:`detection_head`; prompts are fused, texts folded.
        arrangement: ``levels``, ``merged`` or ``grid``, see :class:`~yolo_edgequant.options.ExportOptions`.
        is_cells_first: outputs are (B, cells, C) instead of (B, C, cells).

    Returns:
        The outputs in order, and how to decode them.

    Raises:
        UnsupportedModelError: the scores are no output of a convolution.
    """
    if compares_with_texts(head):
        raise UnsupportedModelError("head='raw' is not possible for the original YOLO-World; use 'float' or 'int8'")
    if hasattr(head, "lrpc"):
        raise UnsupportedModelError("head='raw' is not possible for a prompt-free YOLOE; use 'float' or 'int8'")
    kind = extra_of(head)
    extras = [] if kind is None else [kind]
    single = single_level(head)
    if isinstance(head, Pose) and head.kpt_shape[1] == 3:
        extras.append("visibility")
        _split_visibility(head, single)
    branches = head.one2one if head.end2end else head.one2many
    if "visibility" in extras:
        branches = {name: branches[name] for name in ("box_head", "cls_head")} | {"pose": head.edgequant_pose}
    _return_branches(head, single, branches, has_masks(head), arrangement, is_cells_first)
    strides = [None] if arrangement == Outputs.MERGED else [int(stride) for stride in head.stride]
    outputs = [Output(name, stride) for name in ("boxes", "scores", *extras) for stride in strides]
    if has_masks(head):
        outputs.append(Output("prototypes"))
    return tuple(outputs), Raw(is_cells_first, head.reg_max, keypoint_scale(head), arrangement.value)


def single_level(head: nn.Module) -> nn.Module:
    """A head that shares a head's layers, and whose ``forward_head`` takes the map of one level."""

    def yoloe(
        self: nn.Module, maps: list[torch.Tensor], box_head: Any, cls_head: Any, mask_head: Any = None, **_: Any
    ) -> dict[str, Any]:
        raw = Detect.forward_head(self, maps, box_head, cls_head)
        if mask_head is not None:
            raw["mask_coefficient"] = torch.cat([m(x).flatten(2) for m, x in zip(mask_head, maps, strict=True)], 2)
        return raw

    single = copy.copy(head)
    single.nl = 1
    if isinstance(head, YOLOEDetect):
        single.forward_head = types.MethodType(yoloe, single)  # upstream's counts the prompts among the maps
    return single


def by_level(
    single: nn.Module, maps: Sequence[torch.Tensor], branches: Mapping[str, Sequence[nn.Module] | None]
) -> list[dict[str, torch.Tensor]]:
    """The outputs of a head's branches, by name, of each level: (B, C, cells).

    Args:
        single: from :func:`single_level`.
        maps: one for each level.
        branches: the modules of each branch, one for each level.
    """
    outputs = []
    for level, features in enumerate(maps):
        modules = {name: None if branch is None else [branch[level]] for name, branch in branches.items()}
        values = single.forward_head([features], **modules)
        outputs.append({name: value for name, value in values.items() if name != "feats"})
    return outputs


def _split_visibility(head: nn.Module, single: nn.Module) -> None:
    """Divide the last convolution of a pose head in two, so that the logits of visibility have a scale of their own.

    They grow as large as training lets them, and in one 8-bit tensor would leave little for the places.
    """

    def rows(convolution: nn.Conv2d, wanted: list[int]) -> nn.Conv2d:
        part = nn.Conv2d(convolution.in_channels, len(wanted), convolution.kernel_size).requires_grad_(False)
        part.weight.copy_(convolution.weight[wanted])
        part.bias.copy_(convolution.bias[wanted])
        return part

    branch = head.one2one if head.end2end else head.one2many
    places = [i for i in range(head.nk) if i % 3 < 2]
    layers = nn.ModuleList()
    for level in range(head.nl):
        branch_layers = branch["pose_head"][level]
        last = branch["kpts_head"][level] if isinstance(head, _Pose26) else branch_layers[-1]
        features = branch_layers if isinstance(head, _Pose26) else branch_layers[:-1]
        layers.append(nn.ModuleList((features, rows(last, places), rows(last, list(range(2, head.nk, 3))))))
    head.edgequant_pose = layers  # a submodule, so that converters find its weights

    def forward_head(self: nn.Module, maps: list[Any], box_head: Any, cls_head: Any, pose: Any) -> dict[str, Any]:
        raw = Detect.forward_head(self, maps, box_head, cls_head)
        features, place, visibility = pose[0]
        shared = features(maps[0])
        return raw | {"kpts": place(shared).flatten(2), "visibility": visibility(shared).flatten(2)}

    single.forward_head = types.MethodType(forward_head, single)


def keypoint_scale(head: nn.Module) -> tuple[float, float] | None:
    """Gain and offset: a keypoint lies raw * 2 - 0.5 cells from its anchor for Pose, raw cells for Pose26."""
    return (1.0, 0.0) if isinstance(head, _Pose26) else (2.0, -0.5) if isinstance(head, Pose) else None


def _return_branches(
    head: nn.Module,
    single: nn.Module,
    branches: Mapping[str, Sequence[nn.Module] | None],
    masks: bool,
    arrangement: Outputs,
    is_cells_first: bool,
) -> None:
    """Let one head instance return its convolutions' outputs instead of detections.

    Args:
        head: a detection head.
        single: the same with one level; its ``forward_head`` gives the outputs of each branch by name.
        branches: the modules of each branch, one for each level.
        masks: mask prototypes come last.
        arrangement: ``levels``, ``merged`` or ``grid``.
        is_cells_first: outputs are (B, cells, C) instead of (B, C, cells).
    """

    def forward(self: nn.Module, x: list[torch.Tensor], *texts: torch.Tensor) -> tuple[torch.Tensor, ...]:
        parts: dict[str, list[torch.Tensor]] = {}
        maps = x[: self.nl]
        for features, level in zip(maps, by_level(single, maps, branches), strict=True):
            for name, values in level.items():
                parts.setdefault(name, []).append(_arranged(values, features, arrangement, is_cells_first))
        if arrangement == Outputs.MERGED:
            axis = 1 if is_cells_first else 2
            parts = {name: [torch.cat(levels, axis)] for name, levels in parts.items()}
        outputs = [values for group in parts.values() for values in group]
        return (*outputs, prototypes(self, x)) if masks else tuple(outputs)

    head.forward = types.MethodType(forward, head)


def _arranged(
    values: torch.Tensor, feature_map: torch.Tensor, arrangement: Outputs, is_cells_first: bool
) -> torch.Tensor:
    """A branch's output of one level, (B, C, cells), in the arrangement of a file."""
    if arrangement == Outputs.GRID:  # NCHW here; a file whose maps are NHWC has it as (B, rows, columns, C)
        return values.view(*values.shape[:2], *feature_map.shape[2:])
    return cells_first(values, feature_map) if is_cells_first else values


def cells_first(values: torch.Tensor, feature_map: torch.Tensor) -> torch.Tensor:
    """(B, C, cells) to (B, cells, C), by way of the map: in an NHWC graph that moves nothing."""
    batch, channels, _ = values.shape
    return values.view(batch, channels, *feature_map.shape[2:]).permute(0, 2, 3, 1).flatten(1, 2)
