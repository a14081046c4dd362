"""``ultralytics.nn.tasks``: a changed model is loaded, built again and run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from torch import nn

from ..errors import MissingToolError
from ..training.activations import replace
from ..training.fake_quantization import Trace, quantization_of
from ..training.tracing import tracing
from ..upstream.blocks import KEY


def torch_safe_load(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """``torch_safe_load``, which says what a checkpoint that was trained quantization-aware needs.

    Raises:
        MissingToolError: it was, and ModelOpt, with which upstream reads it, is not installed.
    """
    checkpoint, file = original(*args, **kwargs)
    if checkpoint.get("modelopt") and find_spec("modelopt") is None:
        raise MissingToolError(
            f"'{file}' was trained quantization-aware (quantize=8), and reading it needs nvidia-modelopt; its ranges "
            "cannot be used here: train without quantize=8 and export that checkpoint"
        )
    return checkpoint, file


def parse_model(original: Callable[..., Any], d: dict[str, Any], ch: int, verbose: bool = True) -> Any:
    """``parse_model``, which swaps the activations again where a model's YAML says that they were swapped."""
    layers, save = original(d, ch, verbose)
    activation = d.get(KEY)
    if activation is not None:
        replace(layers, activation, contextlib.ExitStack())
    return layers, save


def predict_once(original: Callable[..., Any], self: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """``BaseModel._predict_once``, which rounds where the model has a fake quantization."""
    quantization = quantization_of(self)
    if quantization is None:
        return original(self, *args, **kwargs)
    with tracing(self, Trace(quantization)):
        return original(self, *args, **kwargs)
