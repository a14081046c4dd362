"""Which of Ultralytics' heads decode boxes, and how each of them does."""

from __future__ import annotations

from torch import nn

from ..errors import UnsupportedModelError
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
    from ultralytics.nn.modules import OBB, Pose, Pose26

    # a keypoint's distance from its anchor in cells is raw * 2 - 0.5 for Pose and raw for Pose26
    keypoint = (1.0, 0.0) if isinstance(head, Pose26) else (2.0, -0.5) if isinstance(head, Pose) else None
    normalise(head, size, isinstance(head, OBB), head.end2end or head.xyxy, keypoint)
