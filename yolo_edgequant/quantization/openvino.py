"""Float OpenVINO graph to INT8 with NNCF, Head #3 kept out of it by a scope found in the graph."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import nncf
import numpy as np
import openvino as ov

from ..errors import RecipeError
from ..runtime.interpreter import Tensor
from ..verification.agreement import Run

LOGGER = logging.getLogger("yolo_edgequant")

_LAYERS = {"Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul"}
_RUNS = 30
_EXACT = {"INFERENCE_PRECISION_HINT": "f32"}  # else bfloat16 on CPUs that have it
_MOVES = {
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
_PASSIVE = {"Constant", "Parameter", "Result", "Convert", "ShapeOf"}


def head(model: ov.Model) -> list[str]:
    """The names of Head #3: every operation between the last trained layers and the results.

    The DFL convolution (weights 0, 1, 2, …) belongs to it, as in :class:`.graph.Graph`.
    """
    pending = [result.input_value(0).get_node() for result in model.get_results()]
    found: dict[str, ov.Node] = {}
    while pending:
        node = pending.pop()
        name = node.get_friendly_name()
        if name in found or node.get_type_name() in _PASSIVE or _ends_layer(node):
            continue
        found[name] = node
        pending.extend(value.get_node() for value in node.input_values())
    return sorted(found)


def quantize(model: ov.Model, images: nncf.Dataset, kind: str, count: int, correct_bias: bool = True) -> ov.Model:
    """Quantise weights and activations to INT8.

    Args:
        model: the float model.
        images: the calibration set; iterated once.
        kind: ``float`` keeps all of Head #3 in float, ``int8`` only the last operation before each result; a ``raw``
            model has no head left to keep.
        count: number of batches in `images`, all of which are used.
        correct_bias: make up for the mean error of what is rounded.

    Raises:
        RecipeError: the scope matched nothing, or something in it was quantised all the same.
    """
    scope = {"float": head, "int8": _last, "raw": lambda _: []}[kind](model)
    if not scope and kind != "raw":
        raise RecipeError(
            "the ignored scope of Head #3 matched nothing: no arithmetic lies between the last trained layers and the "
            "results of this model"
        )
    LOGGER.info("Head #3: %d operations in float (NNCF ignored scope)", len(scope))
    quantised = nncf.quantize(
        model,
        images,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=count,
        ignored_scope=nncf.IgnoredScope(names=scope) if scope else None,
        advanced_parameters=nncf.AdvancedQuantizationParameters(disable_bias_correction=not correct_bias),
    )
    _assert_float(quantised, set(scope))
    return quantised


def activation_ranges(model: ov.Model) -> dict[str, tuple[float, float]]:
    """By name of the operation whose result is rounded to 8 bits, the range that these cover.

    In execution order; of a result that is rounded with several ranges, where it is read and where it was moved to, the
    widest.
    """
    ranges: dict[str, tuple[float, float]] = {}
    for node in model.get_ordered_ops():
        if _rounds_activations(node):
            name = _computed(node).get_friendly_name()
            low, high = (float(_constant(node.input_value(position).get_node())) for position in (1, 2))
            known = ranges.get(name, (low, high))
            ranges[name] = (min(low, known[0]), max(high, known[1]))
    return ranges


def set_ranges(model: ov.Model, ranges: dict[str, tuple[float, float]]) -> None:
    """Change the ranges of a quantised model, in place.

    Args:
        model: as from :func:`quantize`.
        ranges: by name of the operation whose result is rounded, (low, high).
    """
    for node in model.get_ops():
        if _rounds_activations(node):
            found = ranges.get(_computed(node).get_friendly_name())
            for position in range(1, 5) if found else ():
                old = node.input_value(position).get_node()
                value = np.full(old.get_data().shape, found[(position - 1) % 2], np.float32)
                node.input(position).replace_source_output(ov.opset13.constant(value).output(0))
    model.validate_nodes_and_infer_types()


def values(model: ov.Model, names: Iterable[str], image: np.ndarray) -> dict[str, np.ndarray]:
    """What a float model's operations of these names compute for an image."""
    wanted = set(names)
    nodes = [node for node in model.get_ops() if node.get_friendly_name() in wanted]
    only = ov.Model([node.output(0) for node in nodes], model.get_parameters())
    made = ov.compile_model(only, "CPU", _EXACT)([image])
    return {node.get_friendly_name(): made[position] for position, node in enumerate(nodes)}


def _rounds_activations(node: ov.Node) -> bool:
    return node.get_type_name() == "FakeQuantize" and _constant(node.input_value(0).get_node()) is None


def _computed(quantiser: ov.Node) -> ov.Node:
    """The operation whose result a quantiser rounds, before it was moved."""
    node = quantiser.input_value(0).get_node()
    while node.get_type_name() in _MOVES:
        node = node.input_value(0).get_node()
    return node


def quantised_layers(quantised: ov.Model, float_model: ov.Model) -> list[str]:
    """The names of the layers with trained weights that compute in 8 bits, in execution order.

    Args:
        quantised: as from :func:`quantize`.
        float_model: what it was made from.
    """
    nodes = {node.get_friendly_name(): node for node in quantised.get_ops()}
    layers = [node for node in float_model.get_ordered_ops() if node.get_type_name() in _LAYERS and _ends_layer(node)]
    names = [node.get_friendly_name() for node in layers]
    return [name for name in names if _constant(nodes[name].input_value(1).get_node()) is None]


def in_float(quantised: ov.Model, float_model: ov.Model, layers: Iterable[str]) -> ov.Model:
    """A copy of a quantised model that computes some layers in float, with the float model's weights and biases.

    An input that is rounded before it is split or moved stays rounded, for its other readers.

    Args:
        quantised: as from :func:`quantize`.
        float_model: what it was made from.
        layers: names, of :func:`quantised_layers`.
    """
    made, chosen = quantised.clone(), set(layers)
    originals = {node.get_friendly_name(): node for node in float_model.get_ops()}
    for layer in made.get_ordered_ops():
        if layer.get_friendly_name() not in chosen:
            continue
        source = layer.input_value(0).get_node()
        if source.get_type_name() == "FakeQuantize":
            layer.input(0).replace_source_output(source.input_value(0))
        _take(layer, 1, originals)
        for reader in layer.output(0).get_target_inputs():
            node = reader.get_node()
            if node.get_type_name() == "Add":  # bias correction was for rounded weights
                _take(node, 1 - reader.get_index(), originals)
    made.validate_nodes_and_infer_types()
    return made


def _take(node: ov.Node, position: int, originals: dict[str, ov.Node]) -> None:
    """Let an operation read the constant that it reads in the original model; leave it if it reads another tensor."""
    source = originals[node.get_friendly_name()].input_value(position).get_node()
    constant = _constant(source)
    if constant is not None:
        value = ov.opset13.constant(constant.reshape(source.get_output_shape(0)))
        node.input(position).replace_source_output(value.output(0))


def latency(file: Path, image: np.ndarray) -> float:
    """Median milliseconds of the interpreter alone, for an image as for :func:`run`."""
    compiled = ov.compile_model(file, "CPU", {"PERFORMANCE_HINT": "LATENCY"})
    request = compiled.create_infer_request()
    times = []
    for _ in range(_RUNS):
        start = time.perf_counter()
        request.infer([image], share_inputs=True, share_outputs=True)
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))


def run(model: ov.Model, images: Sequence[np.ndarray], exact: bool = False) -> Run:
    """The model's outputs for images (B, 3, H, W), float32.

    Args:
        model: float or quantised.
        images: one a batch.
        exact: compute in float32 where the device would take a shorter type.
    """
    compiled = ov.compile_model(model, "CPU", _EXACT if exact else {})
    made = [[np.array(value) for value in compiled([image]).values()] for image in images]
    return Run([Tensor(tuple(value.shape), np.dtype(np.float32)) for value in made[0]], made)


def _ends_layer(node: ov.Node) -> bool:
    """True for a layer with trained weights, the addition of its bias, and the SiLU behind it."""
    kind = node.get_type_name()
    if kind in _LAYERS:
        weights = _constant(node.input_value(1).get_node())
        if weights is None:
            return False  # a product of two activations, as in attention
        return not (weights.size > 1 and np.array_equal(weights.ravel(), np.arange(weights.size)))
    if kind == "Swish":
        return _ends_layer(node.input_value(0).get_node())
    if kind == "Add":
        operands = [value.get_node() for value in node.input_values()]
        return any(
            _constant(b) is not None and a.get_type_name() in _LAYERS and _ends_layer(a)
            for a, b in (operands, operands[::-1])
        )
    return False


def _constant(node: ov.Node) -> np.ndarray | None:
    while node.get_type_name() in {"Convert", "Reshape"}:
        node = node.input_value(0).get_node()
    return node.get_data() if node.get_type_name() == "Constant" else None


def _last(model: ov.Model) -> list[str]:
    return sorted({result.input_value(0).get_node().get_friendly_name() for result in model.get_results()})


def _assert_float(model: ov.Model, scope: set[str]) -> None:
    """NNCF reports no scope that it ignored in vain, so look."""
    for node in model.get_ops():
        if node.get_friendly_name() in scope:
            for value in node.input_values():
                source = value.get_node()
                if source.get_type_name() == "FakeQuantize" and _reads_only(source, scope):
                    raise RecipeError(
                        f"'{node.get_friendly_name()}' should have stayed in float but its input is quantised"
                    )


def _reads_only(quantiser: ov.Node, scope: set[str]) -> bool:
    """True if nothing outside the scope reads the quantiser's output."""
    return all(target.get_node().get_friendly_name() in scope for target in quantiser.output(0).get_target_inputs())
