"""Activations inside Ultralytics' blocks, and how a choice of them lives on in a model.

Ultralytics rebuilds a model from its YAML when training starts or resumes. The YAML's own key ``activation`` reaches
most blocks but not those that name SiLU themselves, so a key of ours says that the choice holds for all of them.
"""

from __future__ import annotations

from typing import Any

from torch import nn

KEY = "edgequant_activation"


def recorded(yaml: dict[str, Any], activation: str, expression: str) -> dict[str, Any]:
    """A copy of a model's YAML with the choice in it.

    Args:
        yaml: as Ultralytics attaches it to a model.
        activation: our name of the activation.
        expression: how ``torch.nn`` makes it, for example ``ReLU6()``.
    """
    return {**yaml, "activation": f"torch.nn.{expression}", KEY: activation}


def swapped(model: Any) -> str | None:
    """The activation that was swapped into a model; None if it has its own."""
    yaml = getattr(model, "yaml", None)
    return yaml.get(KEY) if isinstance(yaml, dict) else None


def hidden(module: nn.Module) -> list[tuple[str, str]]:
    """The activation functions that a block of Ultralytics calls itself, where no swap reaches, and why they stay."""
    names = {kind.__name__ for kind in type(module).__mro__}
    return [entry for name, entries in _HIDDEN.items() if name in names for entry in entries]


def has_attention(model: nn.Module) -> bool:
    """True if a model weighs positions against each other: two matrix products of activations, a softmax between."""
    return any(_POSITIONS in hidden(module) for module in model.modules())


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
