"""What a changed model learns from its teacher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from ultralytics.nn.distill_model import DistillationModel

from ..training.distillation import averaged, mirrored, output_distance
from ..training.fake_quantization import quantization_of
from ..upstream import compat
from ..upstream.blocks import swapped

_UNMATCHED = {"mask_coefficient", "kpts", "angle"}  # outputs that only labels teach


def loss(
    original: Callable[..., Any], self: DistillationModel, batch: dict[str, Any], preds: Any = None
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """``DistillationModel.loss``, which adds the distance from the teacher's outputs for students of ours.

    Raises:
        OptionError: student and teacher have other outputs.
    """
    total, items = original(self, batch, preds)
    rounded = quantization_of(self.student_model) is not None
    if not self.training or (swapped(self.student_model) is None and not rounded):
        return total, items
    *necks, head = compat.feature_keys(self)  # upstream's hooks keep the head's output behind those of the neck
    student, teacher = self._student_feats[head], self._teacher_feats[head]
    branches = [name for name in ("one2many", "one2one") if name in student] or ["one2many"]
    students, teachers = ([self.decouple_outputs(outputs, name) for name in branches] for outputs in (student, teacher))
    if rounded and swapped(self.student_model) is None and not _UNMATCHED & students[0].keys():
        total = torch.zeros_like(total)  # it starts at its teacher's answers, and a few labels would lead it away
        if self.student_model.args.fliplr > 0:  # otherwise left and right mean something in this data
            levels = [tuple(self._teacher_feats[level].shape[-2:]) for level in necks]
            with torch.no_grad():
                self.teacher_model(batch["img"].flip(-1))
            mirror = [self.decouple_outputs(self._teacher_feats[head], name) for name in branches]
            teachers = [averaged(one, mirrored(other, levels)) for one, other in zip(teachers, mirror, strict=True)]
    distance = sum(output_distance(*pair) for pair in zip(students, teachers, strict=True)) / len(branches)
    total = torch.cat((total[:-1], total[-1:] + distance * batch["img"].shape[0]))
    return total, compat.with_distance(items, distance.detach())
