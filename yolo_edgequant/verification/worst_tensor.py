"""Which tensor of a collapsed INT8 model is to blame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np


def worst_tensor(
    steps: Iterable[tuple[str, list[str]]], reference: Mapping[str, np.ndarray], quantized: Mapping[str, np.ndarray]
) -> tuple[str, float]:
    """The tensor where most is lost between what an operation reads and what it writes.

    Args:
        steps: every tensor that the float model computes, in order, each with what it is made of, by name.
        reference, quantized: values for one image, by name; tensors that one of them lacks are passed over.

    Returns:
        The tensor's name, and the share of its signal that is left, 0 to 1.
    """
    kept: dict[str, float] = {}
    worst, loss = "none", -1.0
    for name, sources in steps:
        if name not in reference or name not in quantized or reference[name].shape != quantized[name].shape:
            continue
        kept[name] = fidelity(reference[name], quantized[name])
        lost = min((kept[source] for source in sources if source in kept), default=1.0) - kept[name]
        if lost > loss:
            worst, loss = name, lost
    return worst, kept.get(worst, 0.0)


def fidelity(reference: np.ndarray, quantized: np.ndarray) -> float:
    """Share of the signal that is left, 0 to 1: the mean over the channels of 1 - noise / variance, at least 0.

    The channels are the last axis of a map, else the shortest axis that is longer than 1: where boxes and scores share
    a tensor, the boxes' variance must not hide that the scores are gone. So ai-edge-quantizer's ratio, which takes the
    whole tensor as one, will not do.
    """
    longer = [axis for axis in range(reference.ndim) if reference.shape[axis] > 1]
    if not longer:
        return 1.0
    channels = reference.ndim - 1 if reference.ndim == 4 else min(longer, key=lambda axis: reference.shape[axis])
    one, other = (np.moveaxis(v, channels, 0).reshape(v.shape[channels], -1) for v in (reference, quantized))
    variance, noise = one.var(1), np.square(one - other).mean(1)
    alive = variance > 0
    return float(np.clip(1 - noise[alive] / variance[alive], 0, 1).mean()) if alive.any() else 1.0
