"""Box decoding in a file: what lies between the last trained layers and the outputs, and how its scales differ.

Found by topology and by the constants' values: names are no guide.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .model import Model, Node

#: Operators that change no value, by both families' names; QUANTIZE and FakeQuantize only round.
MOVES = frozenset(
    {
        *("TRANSPOSE", "RESHAPE", "SLICE", "STRIDED_SLICE", "SPLIT", "SPLIT_V", "CONCATENATION", "QUANTIZE"),
        *("DEQUANTIZE", "SQUEEZE", "EXPAND_DIMS", "PACK", "UNPACK", "GATHER", "GATHER_ND", "PAD"),
        *("Transpose", "Reshape", "Slice", "StridedSlice", "Split", "VariadicSplit", "Concat", "FakeQuantize"),
        *("Squeeze", "Unsqueeze", "Gather", "Convert", "Pad"),
    }
)

_SHAPES = {"SHAPE", "ShapeOf"}
SIGMOIDS = {"LOGISTIC", "Sigmoid"}
_PRODUCTS = {"MUL", "Multiply"}
_SUMS = {"ADD", "Add"}


@dataclass(frozen=True)
class Head:
    """Where box decoding is in a model.

    Attributes:
        nodes: its operators, in execution order.
        ends: outputs of the last trained layers, of the SiLU behind one if there is one: what it reads.
    """

    nodes: tuple[Node, ...]
    ends: tuple[int, ...]

    @classmethod
    def of(cls, model: Model) -> Head:
        """Every operator between the last trained layers and the outputs; empty if no layer leads to an output."""
        pending, inside, ends = list(model.outputs), {}, set()
        while pending:
            tensor = pending.pop()
            node = model.producer.get(tensor)
            if node is None or node.index in inside or node.kind in _SHAPES:
                continue
            if _ends_layer(model, node):
                ends.add(tensor)
                continue
            inside[node.index] = node
            pending.extend(t for t in node.inputs if not model.tensors[t].constant)
        if not ends:
            return cls((), ())
        return cls(tuple(inside[index] for index in sorted(inside)), tuple(sorted(ends)))

    def tensors(self) -> list[int]:
        """What the last layers write, and what box decoding computes from it."""
        return list(dict.fromkeys((*self.ends, *(tensor for node in self.nodes for tensor in node.outputs))))

    def constants(self, model: Model) -> list[int]:
        """What box decoding calculates with: anchors, strides, bins."""
        return sorted({t for node in self.nodes for t in node.inputs if model.tensors[t].constant})

    def arithmetic(self, model: Model) -> list[int]:
        """What it computes, as opposed to what the layers wrote and what is only moved and rounded."""
        moved = set(self.ends)
        results = []
        for node in self.nodes:
            if node.kind in MOVES and all(t in moved for t in node.inputs if not model.tensors[t].constant):
                moved.update(node.outputs)
            else:
                results.extend(node.outputs)
        return results


@dataclass(frozen=True)
class Spread:
    """How far apart the scales in box decoding are.

    Attributes:
        activations: the largest over the smallest scale of what is computed.
        all: the same with the constants that it calculates with.
        largest, smallest: tensors of `activations`.
    """

    activations: float
    all: float
    largest: int
    smallest: int


def spread(model: Model, head: Head) -> Spread | None:
    """The spread of scales in box decoding; None if nothing in it has a scale."""
    computed = [t for t in head.tensors() if model.tensors[t].scale]
    if not computed:
        return None
    scale = {t: model.tensors[t].scale or 0.0 for t in computed}
    largest, smallest = max(computed, key=scale.__getitem__), min(computed, key=scale.__getitem__)
    constants = [s for t in head.constants(model) if (s := model.tensors[t].scale)]
    every = [*scale.values(), *constants]
    return Spread(scale[largest] / scale[smallest], max(every) / min(every), largest, smallest)


def in_pixels(model: Model, head: Head) -> list[int]:
    """What box decoding computes on one scale for most of the image's side, in pixels and not in shares of it."""
    if model.side < 64:
        return []
    return [t for t in head.arithmetic(model) if model.tensors[t].span >= 0.75 * model.side]


def lost_scores(model: Model, head: Head) -> list[tuple[int, float]]:
    """Tensors in which a sigmoid's 0 to 1 has less than 16 steps, each with the number of steps."""
    pending = [tensor for node in head.nodes if node.kind in SIGMOIDS for tensor in node.outputs]
    lost, reached = {}, set(pending)
    while pending:
        tensor = pending.pop()
        scale = model.tensors[tensor].scale
        if scale is not None and 1 / scale < 16:
            lost[tensor] = 1 / scale
        for node in model.consumers.get(tensor, ()):
            if node.kind in MOVES:
                new = [output for output in node.outputs if output not in reached]
                reached.update(new)
                pending.extend(new)
    return sorted(lost.items())


def stride_step(model: Model, head: Head) -> float | None:
    """The coarsest step of a box's edge, pixels, where cells are scaled by their strides in 8 bits; None if nowhere."""
    steps = []
    for node in head.nodes:
        if node.kind not in _PRODUCTS or len(node.inputs) != 2:
            continue
        for one, other in (node.inputs, node.inputs[::-1]):
            strides, scale = model.tensors[other].dequantized(), model.tensors[one].scale
            if scale is not None and model.tensors[other].constant and strides is not None and _are_strides(strides):
                steps.append(scale * float(strides.max()))
    return max(steps, default=None)


def _are_strides(values: np.ndarray) -> bool:
    """True for 8, 16, 32 and the like, within what rounding to 8 bits leaves of them."""
    if values.size < 2 or values.min() < 3 or values.max() > 130:
        return False
    powers = np.log2(np.unique(values.round(1)))
    return len(powers) <= 5 and bool((np.abs(powers - powers.round()) < 0.05).all()) and len(powers) > 1


def _ends_layer(model: Model, node: Node) -> bool:
    """True for a layer with trained weights, the addition of its bias, and the SiLU behind one."""
    if model.weights_of(node) is not None:
        return True
    kind = node.kind
    if kind in _SUMS:  # OpenVINO adds the bias, one number a channel
        constants = [model.tensors[t] for t in node.inputs if model.tensors[t].constant]
        sides = sum(side > 1 for side in constants[0].shape) if constants else 2
        return sides < 2 and _any_layer(model, node.inputs)
    if kind == "Swish":
        return _any_layer(model, node.inputs)
    if kind not in _PRODUCTS or len(node.inputs) != 2:
        return False
    for one, other in (node.inputs, node.inputs[::-1]):  # x * sigmoid(x)
        gate = model.producer.get(other)
        if gate is not None and gate.kind in SIGMOIDS and gate.inputs[:1] == (one,):
            return _any_layer(model, (one,))
    return False


def _any_layer(model: Model, tensors: Iterable[int]) -> bool:
    """True if one of the tensors is a layer's output, perhaps with its bias."""
    for tensor in tensors:
        node = model.producer.get(tensor)
        if node is None:
            continue
        if model.weights_of(node) is not None:
            return True
        if node.kind in _SUMS and any(
            (source := model.producer.get(t)) is not None and model.weights_of(source) is not None for t in node.inputs
        ):
            return True
    return False
