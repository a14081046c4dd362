"""A detection head that decodes with the cells first, for files whose maps are NHWC inside.

Upstream's heads flatten each map to (B, C, cells). In an NHWC graph that transposes every map, and DFL once more, for
which accelerators are slow. Here boxes and scores stay as (B, cells, C) until the end, where one transposition gives
the arrangement that upstream's readers know.
"""

from __future__ import annotations

import types

import torch
from torch import nn

from ..decoding import in_torch
from . import heads


def is_possible(head: nn.Module) -> bool:
    """True for heads whose boxes and scores are outputs of convolutions."""
    return not heads.compares_with_texts(head) and not hasattr(head, "lrpc")


def decode(head: nn.Module, size: tuple[int, int], turn: bool, separate: bool, integer: bool) -> list[str]:
    """Make a head, on this instance, decode in the unit square with the cells first.

    Args:
        head: from :func:`.heads.detection_head`, for which :func:`is_possible`.
        size: (height, width) of the input in pixels.
        turn: give rotated boxes; else as if their angle were 0, for a reader that turns them.
        separate: give mask coefficients, angles and keypoints as an output of their own.
        integer: the arithmetic will be in 8 bits, which have neither sine nor cosine, and in which the reader chooses
            an NMS-free head's detections; in float the head does.

    Returns:
        The names of the model's outputs, in order: (B, 4 + nc + extra, A) detections, or (B, N, 6 + extra) that the
        head has chosen; what is separate, (B, C, A); prototypes.
    """
    grid = in_torch.Grid.of(size, [int(s) for s in head.stride], head.stride.device)
    by_cell, keypoint = grid.by_cell(), heads.keypoint_scale(head)
    rotated, corners = heads.is_rotated(head) and turn, (head.end2end or head.xyxy) and not heads.is_rotated(head)
    of_levels = [in_torch.LevelBoxes.of(size, int(s), head.reg_max, corners, head.stride.device) for s in head.stride]
    masks, extra = heads.has_masks(head), heads.extra_of(head)
    single = heads.single_level(head)

    def forward(
        self: nn.Module, x: list[torch.Tensor], *texts: torch.Tensor
    ) -> torch.Tensor | tuple[torch.Tensor, ...]:
        branches = self.one2one if self.end2end else self.one2many
        maps = x[: self.nl]
        levels = heads.by_level(single, maps, branches)
        boxes, scores = (
            [heads.cells_first(level[name], m) for level, m in zip(levels, maps, strict=True)]
            for name in ("boxes", "scores")
        )
        added = None if extra is None else torch.cat([level[extra] for level in levels], 2)
        if rotated:
            distances = in_torch.distances_by_cell(torch.cat(boxes, 1), self.reg_max)
            places = [in_torch.rotated_boxes(distances, added.transpose(1, 2), by_cell, polynomial=integer)]
        else:
            decoded = [decode_boxes(raw) for decode_boxes, raw in zip(of_levels, boxes, strict=True)]
            places = [torch.cat(part, 1) for part in zip(*decoded, strict=True)]
        # each level's scores have a scale of their own up to the sigmoid
        parts = (*places, torch.cat([values.sigmoid() for values in scores], 1))
        detections = torch.cat([part.transpose(1, 2) for part in parts], 1)  # behind it, joining them would copy both
        if keypoint is not None:
            added = in_torch.keypoints(added, tuple(self.kpt_shape), grid, *keypoint)
        if added is not None and not separate:
            detections = torch.cat((detections, added), 1)
        if self.end2end and not integer:
            detections = self.postprocess(detections.permute(0, 2, 1))
        outputs = [detections]
        if added is not None and separate:
            outputs.append(added)
        if masks:
            outputs.append(heads.prototypes(self, x))
        return tuple(outputs) if len(outputs) > 1 else detections

    head.forward = types.MethodType(forward, head)
    names = ["detections"]
    if extra is not None and separate:
        names.append(extra)
    return [*names, "prototypes"] if masks else names
