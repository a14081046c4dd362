"""The call that starts a training: changed models are trained as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ultralytics.engine.model import Model

from ..training.activations import check
from ..training.fake_quantization import quantization_of
from ..training.trainer import trainer_for


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
