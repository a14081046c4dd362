"""Where the operators of a file would run on a device, by the rules of its profile (:mod:`~yolo_edgequant.targets`)."""

from __future__ import annotations

from dataclasses import dataclass

from ..targets.devices import Device
from ..targets.placement import Operator, Placement, TensorFacts, partitions, place
from .model import Model, Tensor


@dataclass(frozen=True)
class Placed:
    """Where a file's operators would run.

    Attributes:
        device: its profile.
        placements: of the operators, in execution order.
        partitions: pieces of the graph on the accelerator.
    """

    device: Device
    placements: tuple[Placement, ...]
    partitions: int

    @property
    def parameters(self) -> int | None:
        """Bytes of the accelerator's memory for weights; None where the profile names none."""
        return next((memory.bytes for memory in self.device.memory if memory.what == "parameters"), None)


def placed(model: Model, device: Device) -> Placed:
    """Ask a device's rules."""
    placements = tuple(place(operators(model), device))
    edges = [
        (producer.index, node.index)
        for node in model.nodes
        for tensor in node.inputs
        if (producer := model.producer.get(tensor)) is not None and producer.index < node.index
    ]
    return Placed(device, placements, partitions(placements, edges))


def operators(model: Model) -> list[Operator]:
    """A file's operators as the rules want them."""
    facts = [_facts(tensor) for tensor in model.tensors]
    return [
        Operator(
            node.kind,
            node.version,
            tuple(facts[tensor] for tensor in node.inputs),
            tuple(facts[tensor] for tensor in node.outputs),
            _numbers(model, node.index),
        )
        for node in model.nodes
    ]


def _facts(tensor: Tensor) -> TensorFacts:
    return TensorFacts(tensor.shape, tensor.dtype, tensor.constant, len(tensor.scales))


def _numbers(model: Model, index: int) -> dict[str, object]:
    """An operator's options, with a transpose's axes, which TFLite has as a constant."""
    node = model.nodes[index]
    options = dict(node.options)
    axes = model.tensors[node.inputs[1]].values if node.kind == "TRANSPOSE" and len(node.inputs) > 1 else None
    if axes is not None:
        options["permutation"] = tuple(int(axis) for axis in axes.ravel())
    return options
