"""Which tensor of a collapsed INT8 model is to blame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from ..quantization.calibration import all_tensors_kept
from ..quantization.graph import Graph
from ..runtime.interpreter import Tensor

if TYPE_CHECKING:
    import openvino as ov


def of_tflite(content: bytes, quantised: bytes, image: np.ndarray) -> tuple[str, float]:
    """The tensor where most is lost between what an operation reads and what it writes.

    Args:
        content: the float file.
        quantised: the INT8 file made of it, in which tensors keep their names.
        image: float32, as the float file takes it.

    Returns:
        The tensor's name, and the share of its signal that is left, 0 to 1.
    """
    graph = Graph(content)
    steps = [
        (graph.name(t), [graph.name(source) for source in op.inputs]) for op in graph.operations for t in op.outputs
    ]
    return _worst(steps, _tflite_values(content, image), _tflite_values(quantised, image))


def of_openvino(model: ov.Model, quantised: ov.Model, image: np.ndarray) -> tuple[str, float]:
    """The same for a float OpenVINO model and the INT8 one that NNCF made of it."""
    steps = [
        (op.get_friendly_name(), [value.get_node().get_friendly_name() for value in op.input_values()])
        for op in model.get_ordered_ops()
    ]
    return _worst(steps, _openvino_values(model, image), _openvino_values(quantised, image))


def _worst(
    steps: list[tuple[str, list[str]]], before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]
) -> tuple[str, float]:
    """Of the tensors that operations make, in order and each with what it is made of, the one that loses most."""
    kept: dict[str, float] = {}
    worst, loss = "none", -1.0
    for name, sources in steps:
        if name not in before or name not in after or before[name].shape != after[name].shape:
            continue
        kept[name] = fidelity(before[name], after[name])
        lost = min((kept[source] for source in sources if source in kept), default=1.0) - kept[name]
        if lost > loss:
            worst, loss = name, lost
    return worst, kept.get(worst, 0.0)


def fidelity(reference: np.ndarray, made: np.ndarray) -> float:
    """Share of the signal that is left, 0 to 1: the mean over the channels of 1 - noise / variance, at least 0.

    The channels are the last axis of a map, else the shortest axis that is longer than 1: where boxes and scores share
    a tensor, the boxes' variance must not hide that the scores are gone.
    """
    longer = [axis for axis in range(reference.ndim) if reference.shape[axis] > 1]
    if not longer:
        return 1.0
    channels = reference.ndim - 1 if reference.ndim == 4 else min(longer, key=lambda axis: reference.shape[axis])
    one, other = (np.moveaxis(v, channels, 0).reshape(v.shape[channels], -1) for v in (reference, made))
    variance, noise = one.var(1), np.square(one - other).mean(1)
    alive = variance > 0
    return float(np.clip(1 - noise[alive] / variance[alive], 0, 1).mean()) if alive.any() else 1.0


def _tflite_values(content: bytes, image: np.ndarray) -> Mapping[str, np.ndarray]:
    """Every computed tensor's value, float32, by name."""
    with all_tensors_kept():
        interpreter = Interpreter(model_content=content, experimental_preserve_all_tensors=True)
        interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]
    interpreter.set_tensor(source["index"], Tensor.of(source).stored(image))
    interpreter.invoke()
    graph = Graph(content)
    wanted = {t for op in graph.operations for t in op.outputs}
    details: Iterable[dict] = (d for d in interpreter.get_tensor_details() if d["index"] in wanted)
    return {d["name"]: Tensor.of(d).values(interpreter.get_tensor(d["index"])) for d in details if _is_number(d)}


def _openvino_values(model: ov.Model, image: np.ndarray) -> Mapping[str, np.ndarray]:
    import openvino as ov

    model = model.clone()
    named = [op for op in model.get_ordered_ops() if op.get_type_name() not in {"Constant", "Result", "FakeQuantize"}]
    named = [op for op in named if op.get_output_size() == 1 and op.output(0).get_element_type() == ov.Type.f32]
    model.add_outputs([op.output(0) for op in named])
    made = ov.compile_model(model, "CPU")([image])
    values = list(made.values())[-len(named) :]
    return {op.get_friendly_name(): value for op, value in zip(named, values, strict=True)}


def _is_number(details: dict) -> bool:
    return details["dtype"] == np.float32 or (details["dtype"] == np.int8 and details["quantization"][0] > 0)
