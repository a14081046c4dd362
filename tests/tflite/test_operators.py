import numpy as np
import pytest
from ai_edge_quantizer.algorithms.utils.common_utils import OpQuantConstraint
from ai_edge_quantizer.utils.constrained_ops_utils import get_constrained_op_list

from tests.graphs import Network
from yolo_edgequant.tflite import interpreter, operators


def constrained(constraint):
    """ai-edge-quantizer's kinds under a constraint, by TFLite's names."""
    return {kind.value for kind in get_constrained_op_list(constraint)}


@pytest.mark.parametrize(
    ("table", "constraint"),
    [
        (operators.SAME_SCALE, OpQuantConstraint.SAME_AS_INPUT_SCALE),
        (operators.JOIN, OpQuantConstraint.SAME_AS_OUTPUT_SCALE),
        (operators.FIXED_RANGE, OpQuantConstraint.FIXED_OUTPUT_SCALE),
    ],
)
def test_the_quantizer_agrees_about_scales(table, constraint):
    assert table
    assert table <= constrained(constraint)


def test_what_computes_has_a_scale_of_its_own():
    computing = constrained(OpQuantConstraint.NO_CONSTRAIN)
    assert {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "MUL"} <= computing
    assert not (operators.CARRY | operators.FIXED_RANGE) & computing


def test_no_operator_is_of_two_kinds():
    parts = (operators.REORDER, operators.SELECT, operators.SPREAD, operators.JOIN, operators.FIXED_RANGE)
    assert sum(map(len, parts)) == len(frozenset().union(*parts))
    assert operators.MOVE == operators.CARRY - operators.SPREAD


def outputs(kind, image):
    network = Network(*image.shape)
    batch, height, width, channels = image.shape
    inputs, shape, options = (network.input,), image.shape, {}
    if kind == "PAD":
        inputs += (network.constant([[0, 0], [1, 2], [1, 0], [0, 0]], np.int32),)
        shape = (batch, height + 3, width + 1, channels)
    elif kind == "RESIZE_NEAREST_NEIGHBOR":
        inputs += (network.constant([2 * height, 2 * width], np.int32),)
        shape = (batch, 2 * height, 2 * width, channels)
    elif kind == "LEAKY_RELU":
        options = {"alpha": 0.1}
    output = network.max_pool(network.input) if kind == "MAX_POOL_2D" else network.add(kind, inputs, shape, **options)
    return interpreter.run(network.content(output), [image]).outputs[0][0]


@pytest.mark.parametrize(
    ("kind", "scales"),
    [*((kind, True) for kind in sorted(operators.HOMOGENEOUS)), ("RELU6", False), ("HARD_SWISH", False)],
)
def test_what_takes_a_multiple_to_the_same_multiple(kind, scales):
    image = np.random.default_rng(0).normal(0, 4, (1, 6, 6, 3)).astype(np.float32)
    same = np.allclose(outputs(kind, 3 * image), 3 * outputs(kind, image), rtol=1e-5)
    assert same is scales
