"""Training a model that was changed here, by a subclass of Ultralytics' trainer for its task.

``Model.train(trainer=...)`` is Ultralytics' own door for one. The class, with the model it has built, is also what
reaches the processes of a training on several devices.
"""

from __future__ import annotations

import copy
from typing import Any

from ..errors import OptionError
from ..upstream.blocks import swapped
from .activations import swap_activation
from .fake_quantization import quantization_of
from .tracing import let_train


class ChangedModelTrainer:
    """What is put in front of a trainer of Ultralytics'.

    Attributes:
        activation: to swap in; None to leave the model's own.
    """

    activation: str | None = None

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
        """The model to train: a quantization-aware one as it is, where upstream builds another from its YAML.

        Raises:
            OptionError: a run is resumed with another activation than it was started with.
        """
        if quantization_of(weights) is not None:
            model = copy.deepcopy(weights).float()
            model.args = self.args
            let_train(model)
            return model
        if self.resume and self.activation not in {None, swapped(weights)}:
            raise OptionError(
                f"activation={self.activation!r} but the run to resume was started with "
                f"{swapped(weights) or 'its own'}; leave activation out, or start a new run"
            )
        model = super().get_model(cfg=cfg, weights=weights, verbose=verbose)
        if self.activation not in {None, swapped(model)}:
            swap_activation(model, self.activation)
        return model

    def train(self) -> Any:
        """Train, on several devices in processes of their own."""
        if self.ddp:
            self.resume = True  # or upstream empties the folder, where the teacher lies; its processes ask anew
        return super().train()


def trainer_for(base: type, activation: str | None) -> type:
    """A subclass of a trainer of Ultralytics' that trains changed models.

    Args:
        base: of the model's task, or the user's own.
        activation: to swap in; None to leave the model's own.
    """
    return type(base.__name__, (ChangedModelTrainer, base), {"activation": activation})
