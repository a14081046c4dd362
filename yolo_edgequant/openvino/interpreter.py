"""Running an OpenVINO model on images: its results, and what its operations compute."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import openvino as ov

from ..runtime.interpreter import Run, Tensor

#: Compute in float32, also on CPUs that have bfloat16.
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}


def run(model: ov.Model, images: Sequence[np.ndarray], exact: bool = False) -> Run:
    """The model's outputs for images (B, 3, H, W), float32.

    Args:
        model: float or quantized.
        images: one a batch.
        exact: compute in float32 where the device would take a shorter type.
    """
    compiled = ov.compile_model(model, "CPU", EXACT if exact else {})
    outputs = [[np.array(value) for value in compiled([image]).values()] for image in images]
    return Run([Tensor(tuple(value.shape), np.dtype(np.float32)) for value in outputs[0]], outputs)


def results_of(model: ov.Model, names: Iterable[str], image: np.ndarray) -> dict[str, np.ndarray]:
    """What a float model's operations of these names compute for an image."""
    wanted = set(names)
    nodes = [node for node in model.get_ops() if node.get_friendly_name() in wanted]
    only = ov.Model([node.output(0) for node in nodes], model.get_parameters())
    results = ov.compile_model(only, "CPU", EXACT)([image])
    return {node.get_friendly_name(): results[position] for position, node in enumerate(nodes)}


def values(model: ov.Model, image: np.ndarray) -> dict[str, np.ndarray]:
    """Every number that a model computes for an image, float32, by the operation's name."""
    model = model.clone()
    named = [op for op in model.get_ordered_ops() if op.get_type_name() not in {"Constant", "Result", "FakeQuantize"}]
    named = [op for op in named if op.get_output_size() == 1 and op.output(0).get_element_type() == ov.Type.f32]
    model.add_outputs([op.output(0) for op in named])  # but for those that are outputs already
    results = ov.compile_model(model, "CPU")([image])
    outputs = {result.get_node().input_value(0): position for position, result in enumerate(model.outputs)}
    return {op.get_friendly_name(): results[outputs[op.output(0)]] for op in named}


def steps(model: ov.Model) -> list[tuple[str, list[str]]]:
    """Every operation in order, each with what it reads, by name."""
    return [
        (op.get_friendly_name(), [value.get_node().get_friendly_name() for value in op.input_values()])
        for op in model.get_ordered_ops()
    ]


def constant_values(outputs: Sequence[ov.Output]) -> list[np.ndarray]:
    """What is computed of constants alone, as rounded weights are."""
    results = ov.compile_model(ov.Model(list(outputs), []), "CPU", EXACT)([])
    return [np.array(results[position]) for position in range(len(outputs))]
