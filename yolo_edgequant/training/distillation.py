"""Distillation of a changed model: the teacher's outputs besides the neck features that upstream matches.

A model that only computes in 8 bits starts so near to its teacher that it can come past it. Its teacher answers twice,
for an image and its mirror image, and the mean of both is a better answer than either.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from ..errors import OptionError
from ..int8 import SCORE_FLOOR

# Eight times upstream's weights of the same losses against the labels: a teacher says more about an image than they do.
# On the drawn data four to sixteen times were about as good; once and sixty-four times were worse.
_SCORES, _BOXES = 4.0, 12.0
_LEAST = 1e-6  # probability with a finite logit
_FLOOR = math.log(SCORE_FLOOR / (1 - SCORE_FLOOR))  # lower scores are all alike


def mirrored(outputs: dict[str, torch.Tensor], levels: list[tuple[int, int]]) -> dict[str, torch.Tensor]:
    """A head's raw outputs for the mirror image of what it saw: left for right.

    Args:
        outputs: ``boxes`` (B, 4 * reg_max, A), sides in the order left, top, right, bottom, and ``scores`` (B, nc, A).
        levels: (H, W) in cells of each level; A is the sum of H * W.
    """
    cells = [height * width for height, width in levels]

    def flipped(values: torch.Tensor) -> torch.Tensor:
        parts = zip(values.split(cells, -1), levels, strict=True)
        return torch.cat([part.unflatten(-1, level).flip(-1).flatten(-2) for part, level in parts], -1)

    sides = flipped(outputs["boxes"]).unflatten(1, (4, -1))
    return {"boxes": sides[:, [2, 1, 0, 3]].flatten(1, 2), "scores": flipped(outputs["scores"])}


def averaged(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The mean of two heads' raw outputs, as of :func:`output_distance`: of probabilities, then in logits again."""
    scores = sum(outputs["scores"].float().sigmoid() for outputs in (one, other)) / 2
    boxes = [outputs["boxes"].float() for outputs in (one, other)]
    if boxes[0].shape[1] > 4:
        boxes = [values.unflatten(1, (4, -1)).softmax(2) for values in boxes]
        sides = (sum(boxes) / 2).clamp(min=_LEAST).log().flatten(1, 2)
    else:
        sides = sum(boxes) / 2
    return {"boxes": sides, "scores": scores.logit(eps=_LEAST)}


def output_distance(student: dict[str, torch.Tensor], teacher: dict[str, torch.Tensor]) -> torch.Tensor:
    """How far a head's raw outputs are from a teacher's, where the teacher sees an object.

    Args:
        student, teacher: ``boxes`` (B, 4 * reg_max, A) and ``scores`` (B, nc, A), logits both, A cells; with reg_max 1
            the boxes are the distances themselves, in cells.

    Returns:
        Scalar: Kullback-Leibler divergence of the scores, and of the distributions of the sides (for reg_max 1, the
        absolute error), summed over the cells, boxes weighted by the teacher's best score, over the sum of that.

    Raises:
        OptionError: the shapes differ.
    """
    for name in ("scores", "boxes"):
        ours, theirs = student[name].shape[1:], teacher[name].shape[1:]
        if ours != theirs:
            raise OptionError(
                f"the teacher's {name} are {tuple(theirs)} (channels, cells) and the model's {tuple(ours)}: choose a "
                "teacher with the data's classes and the model's kind of head"
            )
    # lower scores count as nothing in validation, and 8-bit files clip them
    student, teacher = ({**outputs, "scores": outputs["scores"].clamp(min=_FLOOR)} for outputs in (student, teacher))
    wanted = teacher["scores"].sigmoid()
    weight = wanted.amax(1, keepdim=True)  # (B, 1, A)
    # from logits: mixed precision refuses the entropy of probabilities
    scores, entropy = (
        functional.binary_cross_entropy_with_logits(outputs["scores"], wanted, reduction="sum")
        for outputs in (student, teacher)
    )
    batch, channels, cells = teacher["boxes"].shape
    if channels == 4:
        sides = (student["boxes"] - teacher["boxes"]).abs()
    else:
        shape = (batch, 4, channels // 4, cells)
        ours, theirs = (boxes.view(shape).log_softmax(2) for boxes in (student["boxes"], teacher["boxes"]))
        sides = functional.kl_div(ours, theirs, reduction="none", log_target=True).sum(2)
    boxes = (sides.mean(1, keepdim=True) * weight).sum()
    return (_SCORES * (scores - entropy) + _BOXES * boxes) / weight.sum()
