import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.graphs import Network
from yolo_edgequant.tflite import calibration, candidate_cells, interpreter
from yolo_edgequant.tflite.graph import Graph
from yolo_edgequant.tflite.input_moments import Blocks, InputMoments

CHANNELS = 4
RANDOM = np.random.default_rng(0)


def layer(kind="CONV_2D", kernel=(6, 3, 3, CHANNELS), size=(5, 6), padding="SAME", stride=1, dilation=1):
    """A graph of one layer, whose output has no more places than patches are taken of an image."""
    network = Network(1, *size, CHANNELS)
    outputs = kernel[3 if kind == "DEPTHWISE_CONV_2D" else 0]
    bias = network.constant(RANDOM.normal(0, 1, outputs))
    inputs = (network.input, network.constant(RANDOM.normal(0, 1, kernel)), bias)
    if kind == "FULLY_CONNECTED":
        return Graph(network.content(network.add(kind, inputs, (size[0] * size[1], outputs))))
    reach = [(side - 1) * dilation for side in kernel[1:3]]
    have = [n - r if padding == "VALID" else n for n, r in zip(size, reach, strict=True)]
    options = {"strideH": stride, "strideW": stride, "dilationHFactor": dilation, "dilationWFactor": dilation}
    if kind == "DEPTHWISE_CONV_2D":
        options["depthMultiplier"] = outputs // CHANNELS
    made = network.add(
        kind,
        inputs,
        (1, *(-(-n // stride) for n in have), outputs),
        padding=getattr(schema.Padding, padding),
        **options,
    )
    return Graph(network.content(made))


LAYERS = {
    "same": {},
    "pointwise": {"kernel": (6, 1, 1, CHANNELS)},
    "valid": {"padding": "VALID"},
    "oblong": {"kernel": (6, 3, 1, CHANNELS)},
    "stride 2": {"stride": 2},
    "stride 2, valid": {"stride": 2, "padding": "VALID"},
    "dilated": {"dilation": 2},
    "grouped": {"kernel": (6, 3, 3, 2)},
    "depthwise": {"kind": "DEPTHWISE_CONV_2D", "kernel": (1, 3, 3, CHANNELS), "stride": 2},
    "depthwise, two of each": {"kind": "DEPTHWISE_CONV_2D", "kernel": (1, 3, 3, 2 * CHANNELS)},
    "fully connected": {"kind": "FULLY_CONNECTED", "kernel": (6, CHANNELS)},
}


@pytest.mark.parametrize("name", LAYERS)
def test_outputs_have_the_moments_that_those_of_the_inputs_give(name):
    """The interpreter computes the outputs, with its own padding, strides and groups."""
    graph = layer(**LAYERS[name])
    (op,) = graph.operations
    moments = InputMoments(graph, op)
    outputs = []
    for image in RANDOM.random((3, *graph.shape(graph.inputs[0])), np.float32):
        moments.update(image)
        outputs.append(interpreter.activations(graph, image)[op.outputs[0]].astype(np.float64))
    values = np.concatenate([output.reshape(-1, output.shape[-1]) for output in outputs])
    assert len(values) <= 3 * 32  # so every place was taken
    rows = moments.blocks.rows(graph.constant(op.inputs[1]).astype(np.float64))
    mean = (rows @ moments.mean[:, :, None]).reshape(-1) + graph.constant(op.inputs[2])
    np.testing.assert_allclose(mean, values.mean(0), atol=1e-4)
    covariance = rows @ moments.covariance @ rows.transpose(0, 2, 1)
    each = covariance.shape[1]
    for block, own in enumerate(covariance):
        part = values[:, block * each : (block + 1) * each]
        np.testing.assert_allclose(own, np.cov(part.T, bias=True).reshape(each, each), atol=1e-3)


def test_many_inputs_are_divided_by_channels():
    graph = layer(kernel=(6, 3, 3, CHANNELS))
    (op,) = graph.operations
    kernel = RANDOM.normal(0, 1, (8, 3, 3, 320))
    blocks = Blocks(kernel.shape, depthwise=False, groups=1, parts=4)
    rows = blocks.rows(kernel)
    assert rows.shape == (4, 8, 9 * 80)
    np.testing.assert_array_equal(rows[2, 5].reshape(3, 3, 80), kernel[5, :, :, 160:240])
    np.testing.assert_array_equal(blocks.as_kernel(rows), kernel)
    patches = RANDOM.normal(0, 1, (5, 3, 3, 320))
    sums = np.einsum("bni,boi->no", blocks.inputs(patches), rows)
    np.testing.assert_allclose(sums, np.einsum("nhwc,ohwc->no", patches, kernel))
    assert Blocks.of(graph, op).parts == 1


def test_large_layers_get_blocks_that_memory_holds():
    network = Network(1, 4, 4, 300)
    graph = Graph(network.content(network.conv(network.input, np.ones((2, 3, 3, 300)))))
    (op,) = graph.operations
    blocks = Blocks.of(graph, op)
    assert blocks.parts == 3  # 2700 inputs, of which 900 are together
    assert InputMoments(graph, op).blocks == blocks


@pytest.mark.parametrize("name", LAYERS)
def test_kernels_come_back(name):
    graph = layer(**LAYERS[name])
    (op,) = graph.operations
    kernel = graph.constant(op.inputs[1])
    blocks = Blocks.of(graph, op)
    np.testing.assert_array_equal(blocks.as_kernel(blocks.rows(kernel)), kernel)


def test_they_are_gathered_for_every_layer_only_if_asked_for(small, pictures):
    layers = [op for op in small.operations if small.bias(op) is not None]
    without, gathered = (calibration.collect(small, iter(pictures), set(), moments=asked) for asked in (False, True))
    assert not any(statistics.moments for statistics in without.values())
    for op in layers:
        moments = gathered[op.inputs[0]].moments[op.index]
        window = moments.blocks.window
        mean = gathered[op.inputs[0]].mean
        middle = moments.mean.reshape(moments.blocks.parts, *window, -1)[:, window[0] // 2, window[1] // 2].ravel()
        np.testing.assert_allclose(middle, mean, rtol=0.2, atol=0.05)  # of 64 places an image


def test_they_are_the_same_each_time(small, pictures):
    op = next(op for op in small.operations if small.bias(op) is not None)
    one, other = (calibration.collect(small, iter(pictures), set(), moments=True)[op.inputs[0]] for _ in range(2))
    np.testing.assert_array_equal(one.moments[op.index].covariance, other.moments[op.index].covariance)


def test_ranges_from_candidate_cells_take_none_away(graph, images):
    cells = candidate_cells.of_decoded(graph, [400, 100, 25], 4)
    gathered = calibration.collect(graph, images[:2], set(), cells=cells, moments=True)
    layers = [op for op in graph.operations if graph.bias(op) is not None]
    assert any(op.inputs[0] in cells.values for op in layers)
    assert {op.index for op in layers} == {index for s in gathered.values() for index in s.moments}
    assert all(np.isfinite(gathered[op.inputs[0]].moments[op.index].covariance).all() for op in layers)
