"""Which of Ultralytics' heads decode boxes, and how each of them does."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..errors import UnsupportedModelError
from ..heads.raw import contract, detach
from ..heads.rewrite import normalise


def detection_head(model: nn.Module) -> nn.Module | None:
    """The model's head if it decodes boxes on a grid, None for the other tasks (classify, semantic, depth).

    Raises:
        UnsupportedModelError: the model is not a YOLO model, or ends in a head unknown here.
    """
    from ultralytics.nn.modules import Classify, Depth, Detect, SemanticSegment

    layers = getattr(model, "model", None)
    if not isinstance(layers, nn.Sequential) or not hasattr(model, "yaml"):
        raise UnsupportedModelError(
            f"{type(model).__name__} is not an Ultralytics YOLO model; INT8 export needs one loaded by YOLO(...)"
        )
    head = layers[-1]
    if isinstance(head, Detect):
        return head
    if isinstance(head, (Classify, SemanticSegment, Depth)):
        return None
    raise UnsupportedModelError(
        f"the head {type(head).__name__} is unknown to yolo_edgequant; call yolo_edgequant.disable() before export() "
        "for Ultralytics' own INT8 export"
    )


def normalise_head(head: nn.Module, size: tuple[int, int]) -> None:
    """Make a detection head, on this instance, give boxes and keypoints as shares of `size` (height, width)."""
    from ultralytics.nn.modules import OBB

    normalise(head, size, isinstance(head, OBB), head.end2end or head.xyxy, _keypoint(head))


def detach_head(head: nn.Module, cells_first: bool) -> dict[str, Any]:
    """Make a detection head, on this instance, give its convolutions' outputs, and say how to decode them.

    Args:
        head: from :func:`detection_head`.
        cells_first: outputs are (B, cells, C) instead of (B, C, cells).

    Raises:
        UnsupportedModelError: the head mixes texts or proposals into its outputs.
    """
    from ultralytics.nn.modules import OBB, Pose, Segment, WorldDetect, YOLOEDetect

    if isinstance(head, (WorldDetect, YOLOEDetect)):
        raise UnsupportedModelError(f"head='raw' is not possible for {type(head).__name__}; use 'float' or 'int8'")
    masks = isinstance(head, Segment)
    extra = next(
        (
            name
            for kind, name in ((Segment, "mask_coefficient"), (Pose, "kpts"), (OBB, "angle"))
            if isinstance(head, kind)
        ),
        None,
    )
    names = ["boxes", "scores", *([extra] if extra else [])]
    single_input = (
        type(head).__name__ == "Segment"
    )  # Segment's prototypes come from the first map, Segment26's from all

    def prototypes(x: list[Any]) -> Any:
        made = head.proto(x[0] if single_input else x)
        return made[0] if isinstance(made, tuple) else made

    detach(head, head.one2one if head.end2end else head.one2many, prototypes if masks else None, cells_first)
    facts: dict[str, Any] = {"reg_max": head.reg_max}
    if isinstance(head, Pose):
        facts |= {"kpt_shape": list(head.kpt_shape), "keypoint": _keypoint(head)}
    strides = [int(stride) for stride in head.stride]
    return contract(names, strides, masks, order="cells, channels" if cells_first else "channels, cells", **facts)


def _keypoint(head: nn.Module) -> tuple[float, float] | None:
    """Gain and offset: a keypoint lies raw * 2 - 0.5 cells from its anchor for Pose, raw cells for Pose26."""
    from ultralytics.nn.modules import Pose, Pose26

    return (1.0, 0.0) if isinstance(head, Pose26) else (2.0, -0.5) if isinstance(head, Pose) else None
