"""Bias correction: what rounding the weights adds to a layer's output on average goes off its bias.

Rounded weights ``Wq`` shift each output channel by ``(Wq - W) E[x]``, with the mean input ``E[x]`` of the calibration
images (M. Nagel et al., https://arxiv.org/abs/1906.04721, section 4.2).

NNCF's fast bias correction compares the float layer's mean output with that of the rounded layer for a picture that has
the mean value everywhere. No real picture is alike at its border and in its middle, so on small maps that difference is
more of the picture than of the rounding. It also leaves a layer as it is where one bias of it is near 0.
"""

from __future__ import annotations

import numpy as np
import openvino as ov

from ..log import LOGGER
from . import graph
from .interpreter import constant_values


def correct_biases(quantized: ov.Model, float_model: ov.Model, means: dict[str, np.ndarray]) -> int:
    """Take the mean error of the rounded weights off the biases of a quantized model, in place.

    Args:
        quantized: from :func:`.quantizer.quantize`, its biases those of the float model.
        float_model: what it was made from.
        means: (C,) of each layer's input, by the layer's name.

    Returns:
        The number of layers that were corrected: those in 8 bits that have a bias.
    """
    nodes = {node.get_friendly_name(): node for node in quantized.get_ops()}
    pairs = [(layer, nodes[layer.get_friendly_name()]) for layer in graph.layers(float_model)]
    pairs = [
        (layer, rounded)
        for layer, rounded in pairs
        if graph.constant(rounded.input_value(1).get_node()) is None and graph.bias(rounded) is not None
    ]
    if not pairs:
        return 0
    weights = constant_values([node.input_value(1) for pair in pairs for node in pair])
    for (layer, rounded), before, after in zip(pairs, weights[::2], weights[1::2], strict=True):
        shift = expected_shift(layer, after.astype(np.float64) - before, means[layer.get_friendly_name()])
        graph.add_to_bias(rounded, -shift)
    quantized.validate_nodes_and_infer_types()
    LOGGER.info("bias correction: %d layers", len(pairs))
    return len(pairs)


def expected_shift(layer: ov.Node, error: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """(C_out,) float64: what an error of a layer's weights adds to its output channels on average.

    Args:
        layer: with trained weights.
        error: of its weights, in their shape.
        mean: (C_in,) of its input.
    """
    kind = layer.get_type_name()
    if kind == "MatMul":
        return error @ mean if layer.get_attributes()["transpose_b"] else mean @ error
    taps = error.sum((-2, -1))
    if kind == "ConvolutionBackpropData":  # (C_in, C_out, H, W): one place in so many sees a tap
        return mean @ taps / np.prod(layer.get_attributes()["strides"])
    if kind == "Convolution":  # (C_out, C_in, H, W)
        return taps @ mean
    by_group = mean.reshape(len(taps), -1)  # of (groups, C_out, C_in, H, W) or, if transposed, (groups, C_in, C_out, …)
    if kind == "GroupConvolution":
        return np.einsum("goi,gi->go", taps, by_group).reshape(-1)
    return np.einsum("gio,gi->go", taps, by_group).reshape(-1) / np.prod(layer.get_attributes()["strides"])
