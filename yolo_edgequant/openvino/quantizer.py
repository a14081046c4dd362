"""Float OpenVINO graph to INT8 with NNCF, box decoding kept out of it by a scope found in the graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import nncf
import numpy as np
import openvino as ov
from numpy.typing import ArrayLike

from ..errors import RecipeError
from ..log import LOGGER
from ..options import Head
from . import graph


def quantize(
    model: ov.Model,
    images: nncf.Dataset,
    head: Head,
    count: int,
    correct_bias: bool = True,
    device: str | None = None,
) -> ov.Model:
    """Quantize weights and activations to INT8.

    Args:
        model: the float model.
        images: the calibration set; iterated once.
        head: ``float`` keeps all of box decoding in float, ``int8`` only the last operation before each result; a
            ``raw`` model has nothing of it left.
        count: number of batches in `images`, all of which are used.
        correct_bias: make up for the mean error of what is rounded.
        device: NNCF's name of the device that the model is for, as ``NPU``; None for any.

    Raises:
        RecipeError: the scope matched nothing, or something in it was quantized all the same.
    """
    scope = {Head.FLOAT: graph.decoding, Head.INT8: graph.last, Head.RAW: lambda _: []}[head](model)
    if not scope and head != Head.RAW:
        raise RecipeError(
            "the ignored scope of box decoding matched nothing: no arithmetic lies between the last trained layers and "
            "the results of this model"
        )
    LOGGER.info("box decoding: %d operations in float (NNCF ignored scope)", len(scope))
    quantized = nncf.quantize(
        model,
        images,
        preset=nncf.QuantizationPreset.MIXED,
        target_device=nncf.TargetDevice.ANY if device is None else nncf.TargetDevice(device),
        subset_size=count,
        ignored_scope=nncf.IgnoredScope(names=scope) if scope else None,
        advanced_parameters=nncf.AdvancedQuantizationParameters(disable_bias_correction=not correct_bias),
    )
    _assert_float(quantized, set(scope))
    return quantized


def activation_ranges(model: ov.Model) -> dict[str, tuple[float, float]]:
    """By name of the operation whose result is rounded to 8 bits, the range that these cover.

    In execution order; of a result that is rounded with several ranges, where it is read and where it was moved to, the
    widest.
    """
    ranges: dict[str, tuple[float, float]] = {}
    for node in graph.roundings(model):
        name = graph.computed(node).get_friendly_name()
        low, high = (float(graph.constant(node.input_value(position).get_node())) for position in (1, 2))
        known = ranges.get(name, (low, high))
        ranges[name] = (min(low, known[0]), max(high, known[1]))
    return ranges


def set_ranges(model: ov.Model, ranges: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> None:
    """Change the ranges of a quantized model, in place.

    Args:
        model: as from :func:`quantize`.
        ranges: (low, high), or for each channel (C,), by name of a rounding, or else of the operation whose result is
            rounded.
    """
    for node in graph.roundings(model):
        known = ranges.get(node.get_friendly_name(), ranges.get(graph.computed(node).get_friendly_name()))
        for position in range(1, 5) if known else ():
            shape = node.input_value(position).get_shape()
            end = np.asarray(known[(position - 1) % 2], np.float32)
            value = np.full(shape, end) if end.ndim == 0 else end.reshape(shape)
            node.input(position).replace_source_output(ov.opset13.constant(value).output(0))
    model.validate_nodes_and_infer_types()


def quantized_layers(quantized: ov.Model, float_model: ov.Model) -> list[str]:
    """The names of the layers with trained weights that compute in 8 bits, in execution order.

    Args:
        quantized: as from :func:`quantize`.
        float_model: what it was made from.
    """
    nodes = {node.get_friendly_name(): node for node in quantized.get_ops()}
    names = [node.get_friendly_name() for node in graph.layers(float_model)]
    return [name for name in names if graph.constant(nodes[name].input_value(1).get_node()) is None]


def in_float(quantized: ov.Model, float_model: ov.Model, layers: Iterable[str]) -> ov.Model:
    """A copy of a quantized model that computes some layers in float, with the float model's weights and biases.

    An input that is rounded before it is split or moved stays rounded, for its other readers.

    Args:
        quantized: as from :func:`quantize`.
        float_model: what it was made from.
        layers: names, of :func:`quantized_layers`.
    """
    mixed, wanted = quantized.clone(), set(layers)
    originals = {node.get_friendly_name(): node for node in float_model.get_ops()}
    for layer in mixed.get_ordered_ops():
        if layer.get_friendly_name() not in wanted:
            continue
        source = layer.input_value(0).get_node()
        if source.get_type_name() == "FakeQuantize":
            layer.input(0).replace_source_output(source.input_value(0))
        _take(layer, 1, originals)
        for reader in layer.output(0).get_target_inputs():
            node = reader.get_node()
            if node.get_type_name() == "Add":  # bias correction was for rounded weights
                _take(node, 1 - reader.get_index(), originals)
    mixed.validate_nodes_and_infer_types()
    return mixed


def _take(node: ov.Node, position: int, originals: dict[str, ov.Node]) -> None:
    """Let an operation read the constant that it reads in the original model; leave it if it reads another tensor."""
    source = originals[node.get_friendly_name()].input_value(position).get_node()
    known = graph.constant(source)
    if known is not None:
        value = ov.opset13.constant(known.reshape(source.get_output_shape(0)))
        node.input(position).replace_source_output(value.output(0))


def _assert_float(model: ov.Model, scope: set[str]) -> None:
    """NNCF reports no scope that it ignored in vain, so look."""
    for node in model.get_ops():
        if node.get_friendly_name() in scope:
            for value in node.input_values():
                source = value.get_node()
                if source.get_type_name() == "FakeQuantize" and _reads_only(source, scope):
                    raise RecipeError(
                        f"'{node.get_friendly_name()}' should have stayed in float but its input is quantized"
                    )


def _reads_only(quantizer: ov.Node, scope: set[str]) -> bool:
    """True if nothing outside the scope reads the quantizer's output."""
    return all(target.get_node().get_friendly_name() in scope for target in quantizer.output(0).get_target_inputs())
