"""A model's forward pass as a list of calls, and the tensors between them, by which files and models are compared."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn

from ..upstream.heads import detection_head
from .fake_quantization import Call, Trace, without_fake_quantization
from .tensor_matching import fingerprint, probe_image


@contextlib.contextmanager
def tracing(model: nn.Module, trace: Trace) -> Iterator[None]:
    """Let a trace see a model's calls but not the decoding of its head, which training leaves out."""
    head = model.model[-1]

    def decode(outputs: Any) -> Any:
        with trace.paused():
            return type(head)._inference(head, outputs)

    with mock.patch.object(head, "_inference", decode), trace:
        yield


def trace(model: nn.Module, shape: tuple[int, ...], training: bool = True) -> tuple[list[Call], dict[int, np.ndarray]]:
    """The calls of a fused model's forward pass for the probe image, in float, and their results' fingerprints.

    Args:
        model: on the CPU; stays in the mode that is asked for.
        shape: (B, C, H, W) of the probe image.
        training: the pass of training, not of inference.
    """
    fingerprints: dict[int, np.ndarray] = {}
    calls = Trace(see=lambda number, values: fingerprints.__setitem__(number, fingerprint(values.numpy())))
    model = without_fake_quantization(model).train(training)
    with torch.no_grad(), tracing(model, calls):
        model(torch.from_numpy(probe_image(shape)))
    return calls.calls, fingerprints


def fuse_batch_norm(model: nn.Module) -> nn.Module:
    """Fold a model's batch-norm into its convolutions, in place, and keep both branches of an end-to-end head."""
    with mock.patch.object(type(detection_head(model)), "fuse"):
        model.fuse(verbose=False)
    let_train(model)
    return model


def let_train(model: nn.Module) -> None:
    """Let all parameters of a fused model learn but those of DFL, which are numbers of bins."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".dfl." not in name)
