"""What a file keeps in memory: its weights, and what is computed and still to be read while an operator runs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .model import Model

_BYTES = {"float32": 4, "int32": 4, "uint32": 4, "float16": 2, "bfloat16": 2, "int16": 2, "int64": 8, "float64": 8}
_SIDES = range(64, 1281, 32)


@dataclass(frozen=True)
class Memory:
    """Memory of a file, bytes.

    Attributes:
        weights: all constants.
        activations: what has to be kept at once, at most; None for dynamic shapes.
        largest: the largest single tensor that is computed; None for dynamic shapes.
    """

    weights: int
    activations: int | None
    largest: int | None

    def sides(self, limit: int, side: int) -> list[int]:
        """Sides of square inputs, multiples of 32 up to 1280, with which all fits into a memory at once.

        What is computed grows with the input's area, so this is an estimate: a compiler may do better or worse.

        Args:
            limit: of the memory, bytes.
            side: the longer side of the input that the file has, pixels.
        """
        if self.activations is None or side <= 0:
            return []
        return [other for other in _SIDES if self.weights + self.activations * (other / side) ** 2 <= limit]


def memory(model: Model) -> Memory:
    """The memory of a model; OpenVINO's activations count as stored, in float, whatever it rounds."""
    if any(model.tensors[tensor].is_dynamic for tensor in model.computed):
        return Memory(model.weights, None, None)
    size = {tensor: _bytes(model, tensor) for tensor in model.computed}
    last = dict.fromkeys(model.computed, -1)
    for node in model.nodes:
        for tensor in node.inputs:
            if tensor in last:
                last[tensor] = node.index
    for tensor in model.outputs:
        last[tensor] = len(model.nodes)
    ending: list[list[int]] = [[] for _ in range(len(model.nodes) + 1)]
    for tensor, index in last.items():
        if index >= 0:
            ending[index].append(tensor)
    alive = set(model.inputs)
    now = most = sum(size[tensor] for tensor in alive)
    for node in model.nodes:
        for tensor in node.outputs:
            if tensor not in alive:
                alive.add(tensor)
                now += size[tensor]
        most = max(most, now)
        for tensor in (*ending[node.index], *(t for t in node.outputs if last[t] < 0)):
            if tensor in alive:
                alive.discard(tensor)
                now -= size[tensor]
    return Memory(model.weights, most, max(size.values(), default=0))


def _bytes(model: Model, tensor: int) -> int:
    info = model.tensors[tensor]
    return math.prod(info.shape) * _BYTES.get(info.dtype, 1)
