"""Raw outputs: the graph ends at the detection convolutions, each output with a scale of its own, and the host decodes.

No arithmetic is left for 8 bits to spoil, and nothing in the file is in float.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..contract import Raw, TopK
from . import in_torch


def detections(
    parts: Mapping[str, torch.Tensor],
    grid: in_torch.Grid,
    raw: Raw,
    kpt_shape: tuple[int, int] | None = None,
    corners: bool = False,
) -> torch.Tensor:
    """Decode raw outputs.

    Args:
        parts: by name, (B, C, A) float32 over the cells of all levels: ``boxes`` (4 * reg_max channels of logits, or 4
            distances), ``scores`` (logits), and what the task has: ``mask_coefficient``, ``angle``, or ``kpts`` (2 for
            each keypoint) and ``visibility`` (logits).
        grid: the cells.
        raw: how to decode.
        kpt_shape: number and size of the keypoints; poses only.
        corners: boxes as x1, y1, x2, y2 instead of centre and size, unless they are rotated.

    Returns:
        (B, 4 + nc + extra, A) float32: normalised boxes, scores from 0 to 1, and what the task adds.
    """
    distances = in_torch.distances(parts["boxes"], raw.reg_max)
    scores = parts["scores"].sigmoid()
    if "angle" in parts:
        return torch.cat((in_torch.rotated_boxes(distances, parts["angle"], grid), scores, parts["angle"]), 1)
    decoded = [in_torch.boxes(distances, grid, corners), scores]
    if "mask_coefficient" in parts:
        decoded.append(parts["mask_coefficient"])
    if "kpts" in parts:
        count, size = kpt_shape
        points = parts["kpts"].unflatten(1, (count, 2))
        if "visibility" in parts:
            points = torch.cat((points, parts["visibility"][:, :, None]), 2)
        decoded.append(in_torch.keypoints(points.flatten(1, 2), (count, size), grid, *raw.keypoint))
    return torch.cat(decoded, 1)


def top_k(detections: torch.Tensor, classes: int, choice: TopK) -> torch.Tensor:
    """The best detections of an end-to-end head, which needs no NMS.

    Args:
        detections: (B, 4 + nc + extra, A) float32.
        classes: nc.
        choice: how many to keep at most, and whether a cell has one class instead of all of them.

    Returns:
        (B, min(choice.count, A), 6 + extra) float32: box, score, class index and what the task adds, the best first; of
        equal scores the earlier cell first, then the lower class.
    """
    scores = detections[:, 4 : 4 + classes]
    best, labels = scores.max(1)
    cells = best.sort(dim=1, descending=True, stable=True).indices[:, : choice.count]
    if choice.agnostic:
        label, score = labels.gather(1, cells), best.gather(1, cells)
    else:
        shortlist = scores.gather(2, cells[:, None].expand(-1, classes, -1)).transpose(1, 2).flatten(1)
        score, position = (part[:, : cells.shape[1]] for part in shortlist.sort(dim=1, descending=True, stable=True))
        cells, label = cells.gather(1, position // classes), position % classes
    rows = detections.gather(2, cells[:, None].expand(-1, detections.shape[1], -1)).transpose(1, 2)
    return torch.cat((rows[..., :4], score[..., None], label[..., None].to(score), rows[..., 4 + classes :]), 2)
