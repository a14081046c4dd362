"""Scores that mean the same: what 8 bits take off the class logits of a level goes back onto its bias.

As in :mod:`..tflite.score_alignment`; see :mod:`..level_shift`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import openvino as ov

from .. import level_shift
from ..level_shift import CandidateLogits, Shift
from . import graph
from .interpreter import EXACT


def align(quantized: ov.Model, before: Mapping[str, CandidateLogits], images: Sequence[np.ndarray]) -> ov.Model:
    """Give the last convolutions of the scores biases that take back what quantization does to their results.

    Args:
        quantized: as from :func:`.quantizer.quantize`; stays as it is.
        before: the float model's logits in these images, by name of the layer that computes them.
        images: (B, 3, H, W) float32 from 0 to 1, by number; some are run.

    Returns:
        A copy with other biases; the same model if nothing is systematic. Logits are not rounded: NNCF rounds what
        8-bit operations read, and a sigmoid is none.
    """
    names = list(before)
    by_level = level_shift.changes(measure(quantized, before, images))
    if not by_level:
        return quantized
    changes = {names[level]: change for level, change in by_level.items()}
    aligned = quantized.clone()
    for node in aligned.get_ordered_ops():
        if (change := changes.get(node.get_friendly_name())) is not None:
            graph.add_to_bias(node, np.full(_channels(node), change))
    aligned.validate_nodes_and_infer_types()
    return aligned


def score_layers(model: ov.Model, classes: int, outputs: Sequence[int] = ()) -> list[str]:
    """The names of the convolutions that compute the class logits, in the order of the levels.

    Args:
        model: float.
        classes: nc.
        outputs: positions of the model's outputs that are class logits, the levels in order; without any, the model
            takes their sigmoid itself.

    Returns:
        Nothing if they are not told from others: where the sigmoid is taken of another branch with as many channels.
    """
    if outputs:
        groups = [[layer for position in outputs for layer in graph.layers_joined(model.outputs[position].get_node())]]
    else:
        inside = set(graph.decoding(model))
        sigmoids = [node for node in model.get_ordered_ops() if node.get_type_name() == "Sigmoid"]
        groups = [graph.layers_joined(node) for node in sigmoids if node.get_friendly_name() in inside]
    groups = [group for group in groups if group and all(_channels(layer) == classes for layer in group)]
    return [layer.get_friendly_name() for layer in groups[0]] if len(groups) == 1 else []


def measure(quantized: ov.Model, before: Mapping[str, CandidateLogits], images: Sequence[np.ndarray]) -> list[Shift]:
    """How the logits of each level differ from the float model's; the arguments are :func:`align`'s."""
    ends = ov.Model(graph.with_bias(quantized, before), quantized.get_parameters())
    compiled = ov.compile_model(ends, "CPU", EXACT)  # what is not in 8 bits comes out alike on every CPU

    def run(image: np.ndarray) -> list[np.ndarray]:
        results = compiled([image])
        return [np.moveaxis(results[level], 1, -1) for level in range(len(before))]

    return level_shift.measure(run, list(before.values()), images)


def _channels(layer: ov.Node) -> int:
    """The output channels of a convolution."""
    return layer.get_output_partial_shape(0)[1].get_length()
