"""Distillation of a swapped model: the teacher's outputs besides the neck features that upstream matches."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import OptionError
from . import aware
from .activation import swapped

if TYPE_CHECKING:
    import torch
    from ultralytics.nn.distill_model import DistillationModel

# Eight times upstream's weights of the same losses against the labels: a teacher says more about an image than they do.
# On the drawn data four to sixteen times were about as good; once and sixty-four times were worse.
_SCORES, _BOXES = 4.0, 12.0
_UNMATCHED = {"mask_coefficient", "kpts", "angle"}  # outputs that only labels teach
_FLOOR = -7.6  # logit of half the lowest score that Ultralytics' validation looks at, 0.001


def loss(
    original: Callable[..., Any], self: DistillationModel, batch: dict[str, Any], preds: Any = None
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """``DistillationModel.loss``, which adds the distance from the teacher's outputs for students of ours.

    Raises:
        OptionError: student and teacher have other outputs.
    """
    import torch

    total, items = original(self, batch, preds)
    rounded = aware.quantization_of(self.student_model) is not None
    if not self.training or (swapped(self.student_model) is None and not rounded):
        return total, items
    head = len(self.feats_idx) - 1  # upstream's hooks keep the head's output behind those of the neck
    student, teacher = self._student_feats[head], self._teacher_feats[head]
    branches = [name for name in ("one2many", "one2one") if name in student] or ["one2many"]
    pairs = [(self.decouple_outputs(student, name), self.decouple_outputs(teacher, name)) for name in branches]
    distance = sum(output_distance(*pair) for pair in pairs) / len(pairs)
    if rounded and swapped(self.student_model) is None and not _UNMATCHED & pairs[0][0].keys():
        total = torch.zeros_like(total)  # it starts at its teacher's answers, and a few labels would lead it away
    items["dis_loss"] = items["dis_loss"] + distance.detach()
    return torch.cat((total[:-1], total[-1:] + distance * batch["img"].shape[0])), items


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
    from torch.nn import functional

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
