"""Training a changed model: the call that starts it, and what it learns from its teacher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from ultralytics.engine.model import Model
from ultralytics.nn.distill_model import DistillationModel

from ..training.activations import check
from ..training.distillation import averaged, mirrored, output_distance
from ..training.fake_quantization import quantization_of
from ..training.trainer import trainer_for
from ..upstream.blocks import swapped

_UNMATCHED = {"mask_coefficient", "kpts", "angle"}  # outputs that only labels teach


def model_train(original: Callable[..., Any], self: Model, trainer: Any = None, **kwargs: Any) -> Any:
    """``Model.train``, which takes ``activation`` besides its own arguments, and trains changed models as they are.

    Raises:
        OptionError: an unknown activation.
    """
    activation = kwargs.pop("activation", None)
    if activation is not None:
        check(activation)
    elif quantization_of(getattr(self.model, "student_model", self.model)) is None:
        return original(self, trainer, **kwargs)
    return original(self, trainer_for(trainer or self._smart_load("trainer"), activation), **kwargs)


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
    head = len(self.feats_idx) - 1  # upstream's hooks keep the head's output behind those of the neck
    student, teacher = self._student_feats[head], self._teacher_feats[head]
    branches = [name for name in ("one2many", "one2one") if name in student] or ["one2many"]
    students, teachers = ([self.decouple_outputs(outputs, name) for name in branches] for outputs in (student, teacher))
    if rounded and swapped(self.student_model) is None and not _UNMATCHED & students[0].keys():
        total = torch.zeros_like(total)  # it starts at its teacher's answers, and a few labels would lead it away
        if self.student_model.args.fliplr > 0:  # otherwise left and right mean something in this data
            levels = [tuple(self._teacher_feats[level].shape[-2:]) for level in range(head)]
            with torch.no_grad():
                self.teacher_model(batch["img"].flip(-1))
            mirror = [self.decouple_outputs(self._teacher_feats[head], name) for name in branches]
            teachers = [averaged(one, mirrored(other, levels)) for one, other in zip(teachers, mirror, strict=True)]
    distance = sum(output_distance(*pair) for pair in zip(students, teachers, strict=True)) / len(branches)
    items["dis_loss"] = items["dis_loss"] + distance.detach()
    return torch.cat((total[:-1], total[-1:] + distance * batch["img"].shape[0])), items
