"""Distillation of a swapped model: the teacher's outputs besides the neck features that upstream matches."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .activation import swapped

if TYPE_CHECKING:
    import torch
    from ultralytics.nn.distill_model import DistillationModel

# upstream's weights of the loss of classes and of the distributions of box sides
_SCORES, _BOXES = 0.5, 1.5


def loss(
    original: Callable[..., Any], self: DistillationModel, batch: dict[str, Any], preds: Any = None
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """``DistillationModel.loss``, which adds the distance from the teacher's outputs if the student is swapped."""
    import torch

    total, items = original(self, batch, preds)
    if not self.training or swapped(self.student_model) is None:
        return total, items
    head = len(self.feats_idx) - 1  # upstream's hooks keep the head's output behind those of the neck
    student, teacher = self._student_feats[head], self._teacher_feats[head]
    branches = [name for name in ("one2many", "one2one") if name in student] or ["one2many"]
    distance = sum(
        output_distance(self.decouple_outputs(student, name), self.decouple_outputs(teacher, name)) for name in branches
    ) / len(branches)
    items["dis_loss"] = items["dis_loss"] + distance.detach()
    return torch.cat((total[:-1], total[-1:] + distance * batch["img"].shape[0])), items


def output_distance(student: dict[str, torch.Tensor], teacher: dict[str, torch.Tensor]) -> torch.Tensor:
    """How far a head's raw outputs are from a teacher's, where the teacher sees an object.

    Args:
        student, teacher: ``boxes`` (B, 4 * reg_max, A) and ``scores`` (B, nc, A), logits both, A cells; with reg_max 1
            the boxes are the distances themselves.

    Returns:
        Scalar: Kullback-Leibler divergence of the scores, and of the distributions of the sides (for reg_max 1, the
        absolute error in cells), summed over the cells by weight of the teacher's best score.
    """
    from torch.nn import functional

    wanted = teacher["scores"].sigmoid()
    weight = wanted.amax(1, keepdim=True)  # (B, 1, A)
    entropy = functional.binary_cross_entropy(wanted, wanted, reduction="sum")
    scores = functional.binary_cross_entropy_with_logits(student["scores"], wanted, reduction="sum") - entropy
    batch, channels, cells = teacher["boxes"].shape
    if channels == 4:
        sides = (student["boxes"] - teacher["boxes"]).abs()
    else:
        shape = (batch, 4, channels // 4, cells)
        ours, theirs = (boxes.view(shape).log_softmax(2) for boxes in (student["boxes"], teacher["boxes"]))
        sides = functional.kl_div(ours, theirs, reduction="none", log_target=True).sum(2)
    boxes = (sides.mean(1, keepdim=True) * weight).sum()
    return (_SCORES * scores + _BOXES * boxes) / weight.sum()
