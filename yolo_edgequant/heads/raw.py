"""Raw outputs: the graph ends at the detection convolutions, each output with a scale of its own, and the host decodes.

No arithmetic is left for 8 bits to spoil, and nothing in the file is in float.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from . import decode


def contract(names: Sequence[str], strides: Sequence[int], masks: bool, **facts: Any) -> dict[str, Any]:
    """What a reader needs to decode: each output's meaning, in order, and the head's constants.

    Args:
        names: of the branches' outputs, for example ``boxes``, ``scores``.
        strides: of the levels, pixels.
        masks: mask prototypes come last.
        facts: the head's constants, by name.
    """
    outputs: list[dict[str, Any]] = [{"name": name, "stride": stride} for name in names for stride in strides]
    return {"outputs": [*outputs, {"name": "prototypes"}] if masks else outputs, "strides": list(strides), **facts}


def detections(
    parts: Mapping[str, torch.Tensor], grid: decode.Grid, facts: Mapping[str, Any], corners: bool = False
) -> torch.Tensor:
    """Decode raw outputs.

    Args:
        parts: by name, (B, C, A) float32 over the cells of all levels: ``boxes`` (4 * reg_max channels of logits, or 4
            distances), ``scores`` (logits), and what the task has: ``mask_coefficient``, ``angle``, or ``kpts`` (2 for
            each keypoint) and ``visibility`` (logits).
        grid: the cells.
        facts: ``reg_max``, and for poses ``kpt_shape`` and ``keypoint`` (gain and offset), from :func:`contract`.
        corners: boxes as x1, y1, x2, y2 instead of centre and size, unless they are rotated.

    Returns:
        (B, 4 + nc + extra, A) float32: normalised boxes, scores from 0 to 1, and what the task adds.
    """
    distances = decode.distances(parts["boxes"], facts["reg_max"])
    scores = parts["scores"].sigmoid()
    if "angle" in parts:
        return torch.cat((decode.rotated_boxes(distances, parts["angle"], grid), scores, parts["angle"]), 1)
    made = [decode.boxes(distances, grid, corners), scores]
    if "mask_coefficient" in parts:
        made.append(parts["mask_coefficient"])
    if "kpts" in parts:
        count, size = facts["kpt_shape"]
        points = parts["kpts"].unflatten(1, (count, 2))
        if "visibility" in parts:
            points = torch.cat((points, parts["visibility"][:, :, None]), 2)
        made.append(decode.keypoints(points.flatten(1, 2), (count, size), grid, *facts["keypoint"]))
    return torch.cat(made, 1)


def top_k(detections: torch.Tensor, classes: int, count: int, agnostic: bool) -> torch.Tensor:
    """The best detections of an end-to-end head, which needs no NMS.

    Args:
        detections: (B, 4 + nc + extra, A) float32.
        classes: nc.
        count: how many to keep at most.
        agnostic: one class for each cell instead of all of them.

    Returns:
        (B, min(count, A), 6 + extra) float32: box, score, class index and what the task adds, the best first; of equal
        scores the earlier cell first, then the lower class.
    """
    scores = detections[:, 4 : 4 + classes]
    best, labels = scores.max(1)
    cells = best.sort(dim=1, descending=True, stable=True).indices[:, :count]
    if agnostic:
        label, score = labels.gather(1, cells), best.gather(1, cells)
    else:
        shortlist = scores.gather(2, cells[:, None].expand(-1, classes, -1)).transpose(1, 2).flatten(1)
        score, place = (made[:, : cells.shape[1]] for made in shortlist.sort(dim=1, descending=True, stable=True))
        cells, label = cells.gather(1, place // classes), place % classes
    chosen = detections.gather(2, cells[:, None].expand(-1, detections.shape[1], -1)).transpose(1, 2)
    return torch.cat((chosen[..., :4], score[..., None], label[..., None].to(score), chosen[..., 4 + classes :]), 2)
