"""Swapping a model's activations for one that the target runs, with the exact way back."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table
from torch import nn

from ..errors import OptionError, UnsupportedModelError
from ..upstream import blocks

#: The activations to choose from; LeakyReLU has YOLO's customary slope.
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu6": nn.ReLU6,
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.1),
    "hardswish": nn.Hardswish,
    "silu": nn.SiLU,
}

# exact types: nn.ReLU6 is a nn.Hardtanh, and a subclass of somebody else's may do more
_SWAPPED = {nn.SiLU, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Hardswish, nn.Mish, nn.GELU, nn.ELU}
_KEPT = {nn.Sigmoid, nn.Hardsigmoid, nn.Softmax, nn.Tanh, nn.Softplus}


@dataclass(frozen=True)
class Row:
    """One activation of a model.

    Attributes:
        scope: dotted name of the module that applies it.
        owner: that module's class.
        before: the activation's class, or a function's name where no module holds it.
        after: the class in its place; None if it was kept.
        why: why it was kept; empty if it was swapped.
    """

    scope: str
    owner: str
    before: str
    after: str | None
    why: str = ""


@dataclass(frozen=True)
class Swap:
    """What :func:`swap_activation` did.

    Attributes:
        activation: a key of :data:`ACTIVATIONS`.
        rows: one for each activation of the model, in the model's order.
    """

    activation: str
    rows: tuple[Row, ...]
    _undo: contextlib.ExitStack = field(repr=False, compare=False)

    def undo(self) -> None:
        """Put the very modules back that were replaced, and the model's YAML; a second call does nothing."""
        self._undo.close()

    def table(self) -> Table:
        """What was swapped where, like rows of a layer as one, to print with Rich."""
        table = Table(title=f"Activations swapped for {self.activation}")
        for title in ("layer", "applied by", "before", "after", "kept because"):
            table.add_column(title)
        table.add_column("count", justify="right")
        layers = Counter((_layer(r.scope), r.owner, r.before, r.after or "kept", r.why) for r in self.rows)
        for row, count in layers.items():
            table.add_row(*row, str(count), style="dim" if row[-1] else None)
        return table


def swap_activation(model: Any, activation: str) -> Swap:
    """Swap every activation of a model, in place.

    Activations that Ultralytics' blocks share or hold themselves (``Conv.default_act``, RepConv, RepVGGDW in CIB) are
    replaced one by one. What decides over positions or scores instead of shaping features is kept and listed: the
    softmax of attention and DFL, the sigmoid of scores. The choice is kept in the model's YAML, so that it survives
    saving, loading, training and resuming.

    Args:
        model: a ``YOLO`` with a PyTorch model, or its ``nn.Module``.
        activation: ``relu6``, ``relu``, ``leaky_relu`` (slope 0.1), ``hardswish`` or ``silu``.

    Returns:
        What was swapped, and the way back.

    Raises:
        OptionError: the activation is not among these.
        UnsupportedModelError: this is no Ultralytics model, or none of its activations can be swapped.
    """
    check(activation)
    module = next((m for m in (getattr(model, "model", None), model) if _is_ultralytics(m)), None)
    if module is None:
        raise UnsupportedModelError(
            f"{type(model).__name__} holds no Ultralytics model in PyTorch; pass YOLO('….pt'), not an exported file"
        )
    undo = contextlib.ExitStack()
    rows = replace(module, activation, undo)
    if not any(row.after for row in rows):
        raise UnsupportedModelError(f"{type(module).__name__} has no activation that could be swapped for {activation}")
    undo.callback(setattr, module, "yaml", module.yaml)
    module.yaml = blocks.recorded(module.yaml, activation, repr(ACTIVATIONS[activation]()))
    if module is not model:
        model.predictor = None  # it keeps a copy of the model
        undo.callback(setattr, model, "predictor", None)
    return Swap(activation, tuple(rows), undo)


def check(activation: str) -> None:
    """Refuse an unknown name.

    Raises:
        OptionError: the name is not a key of :data:`ACTIVATIONS`.
    """
    if activation not in ACTIVATIONS:
        raise OptionError(f"activation={activation!r} is not one of {', '.join(map(repr, ACTIVATIONS))}")


def replace(root: nn.Module, activation: str, undo: contextlib.ExitStack) -> list[Row]:
    """Replace the activations below a module; `undo` learns how to put each back.

    Modules that only training uses (the flow of YOLO26 poses) are left alone and not listed.
    """
    rows = []
    training_only = {id(m) for owner in root.modules() if blocks.only_trains(owner) for m in owner.modules()}
    for scope, owner in root.named_modules():
        if id(owner) in training_only:
            continue
        kind = type(owner).__name__
        for name, child in list(owner._modules.items()):  # named_children() would skip a module that is there twice
            if type(child) in _SWAPPED:
                new = ACTIVATIONS[activation]()
                new.train(child.training)
                owner._modules[name] = new
                undo.callback(owner._modules.__setitem__, name, child)
                rows.append(Row(scope, kind, type(child).__name__, type(new).__name__))
            elif type(child) in _KEPT:
                rows.append(Row(scope, kind, type(child).__name__, None, "a gate or a choice, not a rectifier"))
        rows += [Row(scope, kind, function, None, why) for function, why in blocks.hidden(owner)]
    return rows


def _is_ultralytics(model: Any) -> bool:
    """True for the module in Ultralytics' models that has the YAML; a ``YOLO`` only passes the attribute on."""
    return isinstance(model, nn.Module) and isinstance(model.__dict__.get("yaml"), dict)


def _layer(scope: str) -> str:
    """``model.2.m.0.cv1`` -> ``2``."""
    return next((part for part in scope.split(".") if part.isdigit()), scope or "model")
