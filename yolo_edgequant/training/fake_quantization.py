"""Fake quantization: a PyTorch model computes as the target's INT8 file would, and can still be trained.

The points are those of the file. Every call of a torch function in the model's forward pass that computes a tensor has
a number; the points of :class:`FakeQuantization` are the numbers of those whose results are tensors in the target's
graph (:mod:`.tensor_matching`). Weights are rounded as the target's quantizer rounds them: symmetric, -127 to
127, the largest absolute value at the end, of a channel or of the whole tensor.

Rounding passes gradients on unchanged; steps and zero points are learned (Esser et al., Learned Step Size
Quantization, 2020; Jain et al., Trained Quantization Thresholds, 2020, for the logarithm of the step).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ..int8 import LARGEST_WEIGHT, STEPS
from ..options import Granularity
from .functions import LOOK, MOVE, WEIGHTED

_NAME = "fake_quantization"  # of the submodule


@dataclass(frozen=True)
class Call:
    """A call that computes a tensor.

    Attributes:
        name: of the torch function.
        shape: of the result, without the batch.
    """

    name: str
    shape: tuple[int, ...]


class FakeQuantization(nn.Module):
    """The points of a model where its INT8 file rounds, with their steps and zero points.

    Args:
        ranges: by number of the call, (low, high) of its result; equal ranges stay equal.
        fixed: numbers of the calls whose steps are not learned.
        layers: numbers of the calls whose weights are rounded.
        granularity: of the weights' steps, ``channel`` or ``tensor``.
        target: the export format whose points these are.
        head: what box decoding is rounded with where it is in integers, which training leaves out: (kind of operation,
            low, high) in execution order.
    """

    def __init__(
        self,
        ranges: Mapping[int, tuple[float, float]],
        fixed: Iterable[int],
        layers: Iterable[int],
        granularity: str,
        target: str,
        head: Sequence[tuple[str, float, float]] = (),
    ) -> None:
        super().__init__()
        # plain texts: a checkpoint is read where the enums may have moved
        self.granularity, self.target, self.head = str(granularity), str(target), tuple(head)
        self.layers = frozenset(layers)
        distinct = sorted(set(ranges.values()))
        self.points = {number: distinct.index(range_) for number, range_ in ranges.items()}
        self.fixed = frozenset(self.points[number] for number in fixed)
        self.start = [((high - low) / STEPS, round(-low / ((high - low) / STEPS))) for low, high in distinct]
        # what was learned, as differences from the start: Ultralytics saves models in half precision
        self.log_factor = nn.Parameter(torch.zeros(len(distinct)))
        self.shift = nn.Parameter(torch.zeros(len(distinct)))

    def ranges(self) -> dict[int, tuple[float, float]]:
        """By number of the call, (low, high) of its result, with the zero point on a level of the 256."""
        ranges = {}
        for number, group in self.points.items():
            step, zero = self._frozen(group)
            ranges[number] = (-zero * step, (STEPS - zero) * step)
        return ranges

    def result(self, number: int, values: torch.Tensor) -> torch.Tensor:
        """A call's result as 8 bits hold it; unchanged where there is no point."""
        group = self.points.get(number)
        if group is None:
            return values
        if group in self.fixed or not self.training:
            return torch.fake_quantize_per_tensor_affine(values, *self._frozen(group), 0, STEPS)
        step, zero = self.start[group]
        step = (self.log_factor[group].exp() * step).reshape(1)
        zero = (self.shift[group] + zero).clamp(0, STEPS).reshape(1)
        factor = (values.numel() * STEPS) ** -0.5  # LSQ's, so that a step's gradient is of a weight's size
        return torch._fake_quantize_learnable_per_tensor_affine(values, step, zero, 0, STEPS, factor)

    def _frozen(self, group: int) -> tuple[float, int]:
        """Step and zero point of a group."""
        step, zero = self.start[group]
        if group in self.fixed:
            return step, zero
        return step * math.exp(self.log_factor[group].item()), round(
            min(max(zero + self.shift[group].item(), 0), STEPS)
        )

    def weights(self, number: int, values: torch.Tensor, axis: int) -> torch.Tensor:
        """The weights of a call as 8 bits hold them."""
        if number not in self.layers:
            return values
        if self.granularity == Granularity.TENSOR:
            step = values.detach().abs().amax().clamp(min=1e-12) / LARGEST_WEIGHT
            return torch.fake_quantize_per_tensor_affine(
                values, step, step.new_zeros(1).int(), -LARGEST_WEIGHT, LARGEST_WEIGHT
            )
        others = [dimension for dimension in range(values.dim()) if dimension != axis]
        step = values.detach().abs().amax(others).clamp(min=1e-12) / LARGEST_WEIGHT
        return torch.fake_quantize_per_channel_affine(
            values, step, torch.zeros_like(step).int(), axis, -LARGEST_WEIGHT, LARGEST_WEIGHT
        )


class Trace(TorchFunctionMode):
    """Numbers the calls of a forward pass, and rounds at the points.

    Args:
        quantization: the points; None to only look.
        see: called with a call's number and its result, before it is rounded.

    Attributes:
        calls: those of the pass so far; a number is a position in it.
    """

    def __init__(
        self,
        quantization: FakeQuantization | None = None,
        see: Callable[[int, torch.Tensor], None] | None = None,
    ) -> None:
        super().__init__()
        self.quantization, self.see = quantization, see
        self.calls: list[Call] = []
        self._paused = False

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Neither number nor round what is computed inside."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if self._paused or name in MOVE or name in LOOK:
            return func(*args, **kwargs)
        if name in WEIGHTED and self.quantization is not None:
            args = self._rounded(func, args, kwargs)
        if name in {"silu", "silu_"}:
            gate = self._computed("sigmoid", torch.sigmoid(args[0]))
            return self._computed("silu", args[0] * gate)
        result = func(*args, **kwargs)
        if isinstance(result, torch.Tensor) and result.is_floating_point() and result.dim() > 2:
            return self._computed(name, result)
        return result

    def _rounded(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """A layer's arguments, (input, weights, ...), with rounded weights."""
        weights = self.quantization.weights(len(self.calls), args[1], WEIGHTED[func.__name__])
        return (args[0], weights, *args[2:])

    def _computed(self, name: str, result: torch.Tensor) -> torch.Tensor:
        number = len(self.calls)
        self.calls.append(Call(name, tuple(result.shape[1:])))
        if self.see is not None:
            self.see(number, result)
        return result if self.quantization is None else self.quantization.result(number, result)


class BiasCorrection(Trace):
    """Takes what rounding the weights adds to each layer's output on average off its bias, layer after layer.

    What :mod:`yolo_edgequant.tflite.bias_correction` does in a file, for the images of this pass.
    """

    def _rounded(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        with_rounded = super()._rounded(func, args, kwargs)
        values, rounded, bias, *rest = with_rounded
        if bias is not None:
            added = func(values, rounded - args[1], None, *rest, **kwargs)
            channels = added.dim() - 1 if func.__name__ == "linear" else 1
            bias.data -= added.mean([axis for axis in range(added.dim()) if axis != channels])
        return with_rounded


def quantization_of(model: Any) -> FakeQuantization | None:
    """The fake quantization that a model was trained with; None for others."""
    return getattr(model, "_modules", {}).get(_NAME)


def attach(model: nn.Module, quantization: FakeQuantization) -> None:
    """Let a model compute with a fake quantization, and be saved with it."""
    model.add_module(_NAME, quantization)


def without_fake_quantization(model: nn.Module) -> nn.Module:
    """A copy of a model that computes in float; the model itself if it does."""
    if quantization_of(model) is None:
        return model
    model = copy.deepcopy(model)
    del model._modules[_NAME]
    return model
