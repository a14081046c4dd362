"""How a choice of activation lives on in Ultralytics' models, and the way of it into training.

Ultralytics rebuilds a model from its YAML when training starts or resumes. The YAML's own key ``activation`` reaches
most blocks but not those that name SiLU themselves, so a key of ours says that the choice holds for all of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from ..errors import OptionError
from . import aware

if TYPE_CHECKING:
    from torch import nn
    from ultralytics.engine.model import Model
    from ultralytics.engine.trainer import BaseTrainer

_KEY = "edgequant_activation"

_for_training: ContextVar[str | None] = ContextVar("yolo_edgequant_activation", default=None)


def recorded(yaml: dict[str, Any], activation: str, expression: str) -> dict[str, Any]:
    """A copy of a model's YAML with the choice in it.

    Args:
        yaml: as Ultralytics attaches it to a model.
        activation: our name of the activation.
        expression: how ``torch.nn`` makes it, for example ``ReLU6()``.
    """
    return {**yaml, "activation": f"torch.nn.{expression}", _KEY: activation}


def swapped(model: Any) -> str | None:
    """The activation that was swapped into a model; None if it has its own."""
    yaml = getattr(model, "yaml", None)
    return yaml.get(_KEY) if isinstance(yaml, dict) else None


def hidden(module: nn.Module) -> list[tuple[str, str]]:
    """The activation functions that a block of Ultralytics calls itself, where no swap reaches, and why they stay."""
    names = {kind.__name__ for kind in type(module).__mro__}
    return [entry for name, entries in _HIDDEN.items() if name in names for entry in entries]


def only_trains(module: nn.Module) -> bool:
    """True for blocks that no inference uses: the flow that weighs the keypoint loss of YOLO26."""
    return type(module).__name__ == "RealNVP"


_POSITIONS = ("softmax", "attention over positions")
_SCORES = ("sigmoid", "scores of the head")

#: Block to the functions that its ``forward`` calls; subclasses inherit them.
_HIDDEN: dict[str, tuple[tuple[str, str], ...]] = {
    "Attention": (_POSITIONS,),
    "AAttn": (_POSITIONS,),
    "MSDeformAttn": (_POSITIONS,),
    "DFL": (("softmax", "expectation over the bins of a side"),),
    "Detect": (_SCORES,),
    "Classify": (("softmax", "scores of the head"),),
    "RTDETRDecoder": (_SCORES,),
    "DeformableTransformerDecoder": (("sigmoid", "boxes of the head"),),
    "ImagePoolingAttn": (("softmax", "attention over texts"),),
    "MaxSigmoidAttnBlock": (("sigmoid", "attention over texts"),),
    "ResNetBlock": (("relu", "called by the block itself"),),
    "SwiGLUFFN": (("silu", "called by the block itself"),),
}


def parse_model(original: Callable[..., Any], d: dict[str, Any], ch: int, verbose: bool = True) -> Any:
    """``parse_model``, which swaps the activations again where a model's YAML says that they were swapped."""
    layers, save = original(d, ch, verbose)
    activation = d.get(_KEY)
    if activation is not None:
        from ..training.activations import replace

        replace(layers, activation, contextlib.ExitStack())
    return layers, save


def model_train(original: Callable[..., Any], self: Model, trainer: Any = None, **kwargs: Any) -> Any:
    """``Model.train``, which takes ``activation`` besides its own arguments."""
    activation = kwargs.pop("activation", None)
    if activation is None:
        return original(self, trainer, **kwargs)
    from ultralytics.utils.torch_utils import parse_device

    from ..training.activations import check

    check(activation)
    if "," in parse_device(kwargs.get("device") or ""):
        raise OptionError(
            f"activation={activation!r} is not possible with several devices (device={kwargs['device']!r}), whose "
            "processes know nothing of it: call swap_activation(model, …), save the model, and train that file"
        )
    with _training_with(activation):
        return original(self, trainer, **kwargs)


@contextlib.contextmanager
def _training_with(activation: str) -> Iterator[None]:
    token = _for_training.set(activation)
    try:
        yield
    finally:
        _for_training.reset(token)


def setup_model(original: Callable[..., Any], self: BaseTrainer) -> Any:
    """``BaseTrainer.setup_model``, which swaps the activations of the model that is about to be trained, and rounds it.

    Raises:
        OptionError: a run is resumed with another activation than it was started with.
    """
    checkpoint = original(self)
    _swap(self)
    aware.setup(self, checkpoint)
    return checkpoint


def _swap(self: BaseTrainer) -> None:
    activation = _for_training.get()
    if activation is None:
        return
    student = getattr(self.model, "student_model", self.model)
    if self.resume and swapped(student) != activation:
        raise OptionError(
            f"activation={activation!r} but the run to resume was started with {swapped(student) or 'its own'}; leave "
            "activation out, or start a new run"
        )
    if swapped(student) != activation:
        from ..training.activations import swap_activation

        swap_activation(student, activation)
