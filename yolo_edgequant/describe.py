"""What of this library is in Ultralytics, and in one of its models."""

from __future__ import annotations

from typing import Any

from .errors import UnsupportedModelError
from .patches import REGISTRY


def describe(model: Any = None) -> str:
    """Each patch as a unified diff of the upstream function; or what was changed in a model, a line each.

    Args:
        model: a ``YOLO`` with a loaded checkpoint, or its module; None for the patches.

    Raises:
        UnsupportedModelError: an exported file, which says in its metadata what it holds.
    """
    if model is None:
        return REGISTRY.describe()
    from torch import nn  # importing the package must not import torch

    from .training.fake_quantization import quantization_of
    from .upstream.blocks import swapped
    from .upstream.models import Model

    module = model.model if isinstance(model, Model) else model
    if not isinstance(module, nn.Module):
        raise UnsupportedModelError(
            f"'{module}' is no PyTorch model: describe() takes a checkpoint; an exported file's metadata says what it "
            "holds (docs/metadata.md)"
        )
    lines = []
    activation, quantization = swapped(module), quantization_of(module)
    if activation is not None:
        lines.append(f"activations: {activation}, swapped in")
    if quantization is not None:
        lines.append(
            f"trained quantization-aware: for {quantization.target!r}, weights per {quantization.granularity}, rounded "
            f"at {len(quantization.points)} points"
        )
    return "\n".join(lines or ["unchanged: activations and arithmetic as Ultralytics made them"])
