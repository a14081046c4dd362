"""Where the operators of a file would run on a device, by the rules of its profile."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

from ..options import Choice
from .devices import Constraints, Device, Permutation

_MOST_AXES = 6  # of a transpose; every order of them is tried


@dataclass(frozen=True)
class TensorFacts:
    """A tensor that an operator reads or writes.

    Attributes:
        shape: as in the file; a dimension that is left open is -1.
        dtype: ``int8``, ``uint8``, ``int32``, ``float32``, …
        constant: its values are in the file.
        scales: number of its scales; 0 if it is not quantized.
    """

    shape: tuple[int, ...]
    dtype: str
    constant: bool
    scales: int


@dataclass(frozen=True)
class Operator:
    """An operator of a file.

    Attributes:
        kind: TFLite's name, as ``CONV_2D``, or OpenVINO's type, as ``Convolution``.
        version: of it.
        inputs, outputs: in the file's order.
        options: by the names of TFLite's schema: ``fused_activation_function`` (a name), ``half_pixel_centers``,
            ``stride_h``, ``stride_w``. A transpose's axes may be there as ``permutation``; else its shapes tell.
    """

    kind: str
    version: int
    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


class Place(Choice):
    """Where an operator runs."""

    ACCELERATOR = "accelerator"
    CPU = "cpu"
    REFUSED = "refused"  # the device's compiler takes no file with it
    UNKNOWN = "unknown"  # no list of the device's operators was read


@dataclass(frozen=True)
class Placement:
    """Where one operator runs, and why not on the accelerator, in a clause; empty where it does."""

    place: Place
    reason: str


def place(operators: Sequence[Operator], device: Device) -> list[Placement]:
    """Where each of the operators would run on a device."""
    return [_place(operator, device) for operator in operators]


def partitions(placements: Sequence[Placement], edges: Iterable[tuple[int, int]] | None = None) -> int:
    """How many pieces of a graph run on the accelerator.

    TFLite's rule: it fills one piece, accelerator or CPU in turn, with every operator whose inputs are there, and goes
    on to the next when none of that kind is left. It begins with the kind of the first operator.

    Args:
        placements: of the operators, in execution order.
        edges: pairs of positions, producer and reader. Without them each operator is taken to need the one before it,
            so that runs in execution order count.
    """
    count = len(placements)
    on = [placement.place == Place.ACCELERATOR for placement in placements]
    needs: list[set[int]] = [{i - 1} if i else set() for i in range(count)]
    if edges is not None:
        needs = [set() for _ in range(count)]
        for producer, reader in edges:
            needs[reader].add(producer)
    done: set[int] = set()
    pieces, kind = 0, bool(on and on[0])
    while len(done) < count:
        before = len(done)
        for position in range(count):  # in execution order, so one pass reaches all of the piece
            if position not in done and on[position] == kind and needs[position] <= done:
                done.add(position)
        grown = len(done) > before
        if not grown and all(on[p] == kind or not needs[p] <= done for p in set(range(count)) - done):
            raise ValueError("the edges have a cycle, or operators are not in execution order")
        pieces += grown and kind
        kind = not kind
    return pieces


def _place(operator: Operator, device: Device) -> Placement:
    if device.accelerator is None:
        return Placement(Place.CPU, f"{device.name} has no accelerator")
    rules = device.operators
    if rules is None:
        return Placement(Place.UNKNOWN, f"no list of {device.name}'s operators was read")
    tensors = (*operator.inputs, *operator.outputs)
    if rules.common.static and any(size < 1 for tensor in tensors for size in tensor.shape):
        return Placement(Place.REFUSED, "a shape is not fixed")
    rule = rules.by_kind.get(operator.kind)
    if rule is None or not rule.accelerator:
        return Placement(Place.CPU, f"{operator.kind} is not among the operators of the {device.accelerator}")
    reason = next(_violations(operator, rule.constraints.over(rules.common)), "")
    return Placement(Place.CPU if reason else Place.ACCELERATOR, reason)


def _violations(operator: Operator, rules: Constraints) -> Iterator[str]:
    """Each constraint that an operator breaks, as a clause."""
    computed = [tensor for tensor in (*operator.inputs, *operator.outputs) if not tensor.constant]
    for tensor in computed:
        yield from _of_tensor(tensor, rules)
    tensors = (*operator.inputs, *operator.outputs)
    if rules.batch_one and any(len(t.shape) == 4 and t.shape[0] != 1 for t in operator.inputs if not t.constant):
        yield "the batch is not 1"
    if rules.per_axis is False and any(tensor.scales > 1 for tensor in tensors):
        yield f"{operator.kind} with a scale for each channel"
    for position in rules.constant_inputs or ():
        if position < len(operator.inputs) and not operator.inputs[position].constant:
            yield f"input {position} is not a constant"
    activation = str(operator.options.get("fused_activation_function", "NONE")).upper()
    if rules.fused is False and activation != "NONE":
        yield f"a fused activation ({activation})"
    if rules.min_version is not None and operator.version < rules.min_version:
        yield f"version {operator.version} is below {rules.min_version}"
    if rules.max_version is not None and operator.version > rules.max_version:
        yield f"version {operator.version} is above {rules.max_version}"
    stride = max(int(operator.options.get(name, 1)) for name in ("stride_h", "stride_w"))
    if rules.max_stride is not None and stride > rules.max_stride:
        yield f"stride {stride} is over {rules.max_stride}"
    elements = math.prod(operator.inputs[0].shape) if operator.inputs else 0
    if rules.max_elements is not None and elements > rules.max_elements:
        yield f"{elements} elements are over {rules.max_elements}"
    if not operator.inputs or not operator.outputs:
        return  # what follows compares shapes
    yield from _of_resize(operator, rules)
    if rules.permutations is not None and not _is_allowed(operator, rules.permutations):
        yield f"transpose of {_shown(operator.inputs[0].shape)} to {_shown(operator.outputs[0].shape)}"


def _of_tensor(tensor: TensorFacts, rules: Constraints) -> Iterator[str]:
    shape = tensor.shape
    if rules.types is not None and tensor.dtype not in rules.types:
        yield f"type {tensor.dtype}"
    if rules.max_rank is not None and len(shape) > rules.max_rank:
        yield f"{len(shape)} dimensions are over {rules.max_rank}"
    if rules.wide_dims is not None and any(size > 1 for size in shape[: max(0, len(shape) - rules.wide_dims)]):
        yield f"shape {_shown(shape)}: only the {rules.wide_dims} innermost dimensions may be over 1"
    if rules.only_dims is not None and sum(size > 1 for size in shape) > rules.only_dims:
        yield f"shape {_shown(shape)}: only {rules.only_dims} dimension may be over 1"
    if rules.max_dim is not None and any(not 1 <= size <= rules.max_dim for size in shape):
        yield f"shape {_shown(shape)}: dimensions are from 1 to {rules.max_dim}"


def _of_resize(operator: Operator, rules: Constraints) -> Iterator[str]:
    if rules.factors is None:
        return
    half_pixel = bool(operator.options.get("half_pixel_centers"))
    factors = rules.half_pixel_factors if half_pixel and rules.half_pixel_factors is not None else rules.factors
    before, after = operator.inputs[0].shape[1:3], operator.outputs[0].shape[1:3]
    if before not in {after, (1, 1)} and after not in {(before[0] * f, before[1] * f) for f in factors}:
        how = " with half_pixel_centers" if half_pixel else ""
        yield f"resize of {_shown(before)} to {_shown(after)}{how}: factors are {', '.join(map(str, factors))}"


def _is_allowed(operator: Operator, allowed: Sequence[Permutation]) -> bool:
    """True if a transpose is one of those; of axes that only shapes tell, if one reading of them is."""
    shape, result = operator.inputs[0].shape, operator.outputs[0].shape
    given = operator.options.get("permutation")
    if len(shape) > _MOST_AXES or (given is not None and sorted(given) != list(range(len(shape)))):
        return False
    readings = [tuple(given)] if given is not None else permutations(range(len(shape)))
    return any(
        tuple(shape[axis] for axis in axes) == result and _matches(axes, shape, allowed)
        for axes in map(tuple, readings)
    )


def _matches(axes: tuple[int, ...], shape: tuple[int, ...], allowed: Sequence[Permutation]) -> bool:
    while len(axes) > 3 and axes[0] == 0 and shape[0] == 1:
        axes, shape = tuple(axis - 1 for axis in axes[1:]), shape[1:]
    return axes == tuple(range(len(axes))) or any(
        axes == one.axes and all(shape[axis] == 1 for axis in one.ones) for one in allowed
    )


def _shown(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a number"
