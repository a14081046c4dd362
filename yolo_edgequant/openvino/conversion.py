"""PyTorch to a float OpenVINO model."""

from __future__ import annotations

import openvino as ov
import torch
from torch import nn


def to_openvino(model: nn.Module, image: torch.Tensor, dynamic: bool = False) -> ov.Model:
    """Convert a model.

    Args:
        model: in evaluation mode.
        image: an example input, (B, C, H, W) float32.
        dynamic: let the input have any shape.
    """
    with torch.no_grad():
        # a second trace, which convert_model would compare with the first, may differ in the order of its nodes
        traced = torch.jit.trace(model, image, strict=False, check_trace=False)
        return ov.convert_model(traced, input=None if dynamic else tuple(image.shape), example_input=image)
