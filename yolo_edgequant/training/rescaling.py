"""A better start for a swapped model than the swap alone: features scaled to fit below ReLU6's bound, batch-norm anew.

ReLU6 clips at 6, and SiLU models have features of several times that. ReLU, without the bound, takes ``s x`` to ``s``
times what it takes ``x`` to, so features can be scaled down where batch-norm makes them and up again in the
convolutions that read them, and the bound is out of the way. Concatenations, sums and the like join what must be scaled
alike. What the new activation changes in mean and variance (SiLU's negative part) batch-norm makes up for, once its
statistics are taken again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from .functions import LOOK, PART, SAME, SPREAD

_BOUND = 6.0
_COVERED = 0.9999  # share of a feature's values that are to lie below the bound
_SAMPLES = 1 << 16  # values of a tensor and image that the share is taken of

_CONVOLUTIONS = {"conv2d", "conv_transpose2d"}
_ACTIVATIONS = {"silu", "relu", "relu6", "hardtanh"}
_JOINING = {"add", "__add__", "cat"} | SAME | PART | SPREAD


class _Features(TorchFunctionMode):
    """Follows features through a forward pass: which batch-norm makes them, which convolutions read them.

    Every feature belongs to a group that has one scale; joining two features joins their groups.
    """

    def __init__(self) -> None:
        super().__init__()
        self.groups: dict[int, int] = {}  # id of a tensor to its group
        self.parents: list[int] = []
        self.norms: dict[int, list[nn.Parameter]] = {}  # by group
        self.readers: dict[int, list[torch.Tensor]] = {}
        self.largest: dict[int, float] = {}
        self.bound: set[int] = set()  # groups that must keep their scale
        self._alive: list[torch.Tensor] = []  # or their ids would be given away again

    def group(self, number: int) -> int:
        while self.parents[number] != number:
            number = self.parents[number]
        return number

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.__name__
        result = func(*args, **kwargs)
        if name in LOOK:
            return result
        read = [self.groups[id(value)] for value in _tensors(args) if id(value) in self.groups]
        if name in _CONVOLUTIONS:
            for number in read:
                self.readers.setdefault(number, []).append(args[1])
        elif name == "batch_norm":
            number = self._new(result)
            weight, bias = kwargs.get("weight"), kwargs.get("bias")
            weight, bias = (args[3], args[4]) if weight is None else (weight, bias)
            self.norms[number] = [weight, bias]
        elif name in _ACTIVATIONS and len(read) == 1:
            self._put(result, read[0])
            step = max(1, result.numel() // _SAMPLES) | 1
            high = float(result.detach().flatten()[::step].float().quantile(_COVERED))
            self.largest[read[0]] = max(self.largest.get(read[0], 0.0), high)
        elif name in _JOINING and read:
            unknown = [v for v in _tensors(args) if id(v) not in self.groups and v.is_floating_point() and v.dim() > 1]
            if unknown:
                self.bound.update(read)
            for number in read[1:]:
                self.parents[self.group(number)] = self.group(read[0])
            for value in _tensors((result,)):
                self._put(value, read[0])
        else:
            self.bound.update(read)
        return result

    def _new(self, value: torch.Tensor) -> int:
        self.parents.append(len(self.parents))
        self._put(value, len(self.parents) - 1)
        return len(self.parents) - 1

    def _put(self, value: torch.Tensor, number: int) -> None:
        self._alive.append(value)
        self.groups[id(value)] = number

    def by_group(self, by_feature: dict[int, list[Any]]) -> dict[int, list[Any]]:
        """What was found of each feature, gathered by group."""
        gathered: dict[int, list[Any]] = {}
        for number, values in by_feature.items():
            gathered.setdefault(self.group(number), []).extend(values)
        return gathered


def scale_below_relu6(model: nn.Module, original: nn.Module, images: Iterable[torch.Tensor]) -> int:
    """Scale the features of a model with ReLU6, in place, so that the bound clips hardly any.

    Args:
        model: with ReLU6, not fused.
        original: the same before the swap, with the same weights, whose features are looked at.
        images: (B, 3, H, W), float, 0 to 1.

    Returns:
        The number of groups of features that were scaled; each had values above 6.
    """
    largest: dict[int, float] = {}
    original.eval()
    for image in images:
        features = _Features()
        with torch.no_grad(), features:
            original(image)
        for group, values in features.by_group({n: [v] for n, v in features.largest.items()}).items():
            largest[group] = max(largest.get(group, 0.0), *values)
    ours = dict(zip(map(id, original.parameters()), model.parameters(), strict=True))
    bound = {features.group(number) for number in features.bound}
    norms, readers = features.by_group(features.norms), features.by_group(features.readers)
    scaled = 0
    for group, high in largest.items():
        if high <= _BOUND or group in bound:
            continue
        scale = _BOUND / high
        with torch.no_grad():
            for parameter in norms[group]:
                ours[id(parameter)].mul_(scale)
            for parameter in readers.get(group, []):
                ours[id(parameter)].div_(scale)
        scaled += 1
    return scaled


def recalibrate_batch_norm(model: nn.Module, images: Iterable[torch.Tensor]) -> None:
    """Take the statistics of a model's batch-norm from images, (B, 3, H, W), float, 0 to 1; in place."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    model.train()
    with torch.no_grad():
        for image in images:
            model(image)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


def _tensors(values: Iterable[Any]) -> list[torch.Tensor]:
    """The tensors among values, and in lists and tuples among them."""
    tensors = []
    for value in values:
        if isinstance(value, torch.Tensor):
            tensors.append(value)
        elif isinstance(value, (list, tuple)):
            tensors.extend(_tensors(value))
    return tensors
