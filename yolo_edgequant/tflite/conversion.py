"""PyTorch to a float ``.tflite`` by litert-torch."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from torch import nn

from ..errors import ConversionError


def to_tflite(model: nn.Module, image: torch.Tensor, channels_last: bool) -> bytes:
    """Convert a model.

    Args:
        model: in evaluation mode, with fixed shapes.
        image: an example input, (B, C, H, W) float32.
        channels_last: let the file take (B, H, W, C), and give outputs of four dimensions the same way.

    Returns:
        The content of a float32 ``.tflite`` file with one signature, ``serving_default``.

    Raises:
        ConversionError: TensorFlow was imported before litert-torch, after which importing the latter crashes Python.
    """
    if "tensorflow" in sys.modules and "litert_torch" not in sys.modules:
        raise ConversionError(
            "tensorflow was imported before litert_torch in this process, and Python would crash in triton's library; "
            "put 'import litert_torch' first, or export in a process of its own"
        )
    import litert_torch
    from litert_torch.progress import config

    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        show, config.show_progress = config.show_progress, False
        try:
            if channels_last:
                outputs = model(image)
                outputs = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
                maps = [i for i, output in enumerate(outputs) if output.ndim == 4]
                model = litert_torch.to_channel_last_io(model, args=[0], outputs=maps)
                image = image.permute(0, 2, 3, 1).contiguous()
            path = Path(folder) / "model.tflite"
            litert_torch.convert(model.eval(), (image,)).export(str(path))
            return path.read_bytes()
        finally:
            config.show_progress = show
