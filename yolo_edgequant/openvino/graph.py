"""An OpenVINO model to look at: where box decoding begins, which layers have trained weights, what is rounded."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import openvino as ov

LAYERS = frozenset(
    {"Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul"}
)

#: Operations whose results have their input's values and no others.
MOVE = frozenset(
    {
        "FakeQuantize",
        "Interpolate",
        "MaxPool",
        "Reshape",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Split",
        "VariadicSplit",
        "Slice",
    }
)

_PASSIVE = {"Constant", "Parameter", "Result", "Convert", "ShapeOf"}


def decoding(model: ov.Model) -> list[str]:
    """The names of box decoding: every operation between the last trained layers and the results.

    The DFL convolution (weights 0, 1, 2, …) belongs to it, as in :class:`yolo_edgequant.tflite.graph.Graph`.
    """
    pending = [result.input_value(0).get_node() for result in model.get_results()]
    inside: dict[str, ov.Node] = {}
    while pending:
        node = pending.pop()
        name = node.get_friendly_name()
        if name in inside or node.get_type_name() in _PASSIVE or ends_layer(node):
            continue
        inside[name] = node
        pending.extend(value.get_node() for value in node.input_values())
    return sorted(inside)


def last(model: ov.Model) -> list[str]:
    """The names of the operations whose results are the model's."""
    return sorted({result.input_value(0).get_node().get_friendly_name() for result in model.get_results()})


def ends_layer(node: ov.Node) -> bool:
    """True for a layer with trained weights, the addition of its bias, and the SiLU behind it."""
    kind = node.get_type_name()
    if kind in LAYERS:
        weights = constant(node.input_value(1).get_node())
        if weights is None:
            return False  # a product of two activations, as in attention
        return not (weights.size > 1 and np.array_equal(weights.ravel(), np.arange(weights.size)))
    if kind == "Swish":
        return ends_layer(node.input_value(0).get_node())
    if kind == "Add":
        operands = [value.get_node() for value in node.input_values()]
        return any(
            constant(b) is not None and a.get_type_name() in LAYERS and ends_layer(a)
            for a, b in (operands, operands[::-1])
        )
    return False


def number_names(model: ov.Model) -> None:
    """Number what has no name of its own by its place in the model, so that equal models are written alike.

    OpenVINO numbers models and operations through the life of a process, those of other exports included.
    """
    if re.fullmatch(r"Model\d+", model.get_friendly_name()):
        model.set_friendly_name("Model0")
    for position, node in enumerate(model.get_ordered_ops()):
        kind = node.get_type_name()
        if re.fullmatch(rf"{kind}_\d+", node.get_friendly_name()):
            node.set_friendly_name(f"{kind}_{position}")


def constant(node: ov.Node) -> np.ndarray | None:
    """The value of a constant, perhaps converted or reshaped; None for what is computed."""
    while node.get_type_name() in {"Convert", "Reshape"}:
        node = node.input_value(0).get_node()
    return node.get_data() if node.get_type_name() == "Constant" else None


def computed(quantizer: ov.Node) -> ov.Node:
    """The operation whose result a quantizer rounds, before it was moved."""
    node = quantizer.input_value(0).get_node()
    while node.get_type_name() in MOVE:
        node = node.input_value(0).get_node()
    return node


def rounds_activations(node: ov.Node) -> bool:
    """True for the rounding of what is computed, as opposed to that of weights."""
    return node.get_type_name() == "FakeQuantize" and constant(node.input_value(0).get_node()) is None


def roundings(model: ov.Model) -> list[ov.Node]:
    """The roundings of activations, in execution order."""
    return [node for node in model.get_ordered_ops() if rounds_activations(node)]


def sharing_scales(model: ov.Model) -> list[list[ov.Node]]:
    """The roundings of activations, those together that a concatenation reads, perhaps moved: it has one scale."""
    groups = {node.get_friendly_name(): [node] for node in roundings(model)}
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Concat":
            continue
        sources = (_rounding_behind(value.get_node()) for value in node.input_values())
        names = [source.get_friendly_name() for source in sources if source is not None]
        members = list({member.get_friendly_name(): member for name in names for member in groups[name]}.values())
        for member in members:
            groups[member.get_friendly_name()] = members
    return list({id(group): group for group in groups.values()}.values())


def _rounding_behind(node: ov.Node) -> ov.Node | None:
    """The rounding of activations whose values an operation only moves, itself included."""
    while node.get_type_name() in MOVE and node.get_type_name() != "FakeQuantize":
        node = node.input_value(0).get_node()
    return node if rounds_activations(node) else None


def channel_axis(layer: ov.Node) -> int:
    """The axis of its input's channels: the last of a product of matrices, else the second."""
    return -1 if layer.get_type_name() == "MatMul" else 1


def bias(layer: ov.Node) -> tuple[ov.Node, int] | None:
    """The addition behind a layer, and which of its inputs is the bias; None if it has none."""
    for reader in layer.output(0).get_target_inputs():
        node, position = reader.get_node(), 1 - reader.get_index()
        if node.get_type_name() == "Add" and constant(node.input_value(position).get_node()) is not None:
            return node, position
    return None


def with_bias(model: ov.Model, layers: Iterable[str]) -> list[ov.Output]:
    """The results of layers, by name, with their biases."""
    nodes = {node.get_friendly_name(): node for node in model.get_ops()}
    return [bias(nodes[name])[0].output(0) for name in layers]


def add_to_bias(layer: ov.Node, change: np.ndarray) -> None:
    """Add (C_out,) to a layer's bias, in place."""
    addition, position = bias(layer)
    node = addition.input_value(position).get_node()
    value = constant(node).reshape(node.get_output_shape(0))
    changed = value + change.reshape([-1 if size > 1 else 1 for size in value.shape])
    addition.input(position).replace_source_output(ov.opset13.constant(changed.astype(np.float32)).output(0))


def layers_joined(node: ov.Node) -> list[ov.Node]:
    """The layers with a bias whose results an operation takes, moved and joined, in order; none if it takes others."""
    joined = []
    for value in node.input_values() if node.get_type_name() == "Concat" else node.input_values()[:1]:
        source = value.get_node()
        if source.get_type_name() in MOVE | {"Concat"}:
            behind = layers_joined(source)
        else:
            operands = [operand.get_node() for operand in source.input_values()]
            behind = [node for node in operands if node.get_type_name() in LAYERS and _is_biased_by(node, source)]
        if not behind:
            return []
        joined += behind
    return joined


def _is_biased_by(layer: ov.Node, node: ov.Node) -> bool:
    own = bias(layer) if ends_layer(layer) else None
    return own is not None and own[0].get_friendly_name() == node.get_friendly_name()


def layers(model: ov.Model) -> list[ov.Node]:
    """The layers with trained weights of a float model, in execution order."""
    return [node for node in model.get_ordered_ops() if node.get_type_name() in LAYERS and ends_layer(node)]
