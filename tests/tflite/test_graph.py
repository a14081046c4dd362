import numpy as np
import pytest

from tests.graphs import Network
from yolo_edgequant.options import IO, Granularity, Head
from yolo_edgequant.tflite.calibrated import calibrate
from yolo_edgequant.tflite.graph import Graph


def test_box_decoding_is_all_behind_the_detection_convolutions(graph):
    decoding = graph.decoding()
    kinds = [op.kind for op in decoding]
    assert kinds.count("SOFTMAX") == 1
    assert kinds.count("CONV_2D") == 1, "the DFL expectation and no trained convolution"
    assert not any(graph.is_layer(op) for op in decoding)
    inside = {op.index for op in decoding}
    sources = {graph.producer[t] for op in decoding for t in op.inputs if t in graph.producer} - set(decoding)
    assert len(sources) == 6, "box and class convolution of three levels"
    assert all(graph.is_layer(op) and op.index not in inside for op in sources)


def test_every_convolution_but_the_expectation_is_a_layer(graph):
    convolutions = [op for op in graph.operations if op.kind == "CONV_2D"]
    assert sum(graph.is_layer(op) for op in convolutions) == len(convolutions) - 1


@pytest.mark.parametrize(
    ("bins", "is_layer"),
    [
        (np.arange(16), False),
        (np.arange(16) + 0.875, False),
        (np.arange(8) - 1.5, False),
        (np.arange(16) * 2, True),
        (np.arange(16)[::-1], True),
        ([1.0], True),
    ],
    ids=["from 0", "from 0.875", "from -1.5", "by 2", "falling", "one"],
)
def test_weights_that_rise_by_1_are_bins_wherever_they_begin(bins, is_layer):
    """Those of heads that decode with the cells first begin at 0.875, so that 8 bits hold them."""
    bins = np.asarray(bins, float)
    network = Network(1, 8, 4, len(bins))
    graph = Graph(network.content(network.conv(network.input, bins.reshape(1, 1, 1, -1), np.array([-bins[0]]))))
    assert graph.is_layer(graph.operations[0]) is is_layer
    assert bool(graph.layers()) is is_layer


def of_sides(bins, rows):
    """A kernel of which each output takes some of the four sides' bins."""
    return (np.asarray(rows, float)[:, :, None] * np.asarray(bins, float)).reshape(len(rows), 1, 1, -1)


BINS = np.arange(16) + 0.875
CENTRE, SIDES = [[-0.5, 0, 0.5, 0], [0, -0.5, 0, 0.5]], np.diag([-1, -1, 1, 1])


@pytest.mark.parametrize(
    ("kernel", "is_layer"),
    [
        (of_sides(BINS * 0.0125, CENTRE), False),
        (of_sides(BINS, np.abs(CENTRE)), False),
        (of_sides(BINS, SIDES), False),
        (of_sides([0.0125], CENTRE), False),
        (of_sides([0.0125], SIDES), False),
        (of_sides(BINS, [[1, 1, 1, 0], [0, 1, 0, 1]]), True),
        (of_sides(BINS, [[-0.5, 0, 0.4, 0], [0, -0.5, 0, 0.5]]), True),
        (of_sides(BINS, [[1, 0, 1, 0], [0, 0, 0, 0]]), True),
        (of_sides(BINS[::-1], CENTRE), True),
        (of_sides(np.sqrt(BINS), CENTRE), True),
        (np.ones((2, 1, 1, 4)), True),
        (np.ones((2, 1, 1, 6)), True),
        (np.tile(of_sides([1], CENTRE), (1, 3, 3, 1)), True),
    ],
)
def test_weights_that_combine_the_sides_of_a_box_are_no_layer(kernel, is_layer):
    network = Network(1, 8, 4, kernel.shape[3])
    graph = Graph(network.content(network.conv(network.input, kernel, np.zeros(len(kernel)))))
    assert graph.is_layer(graph.operations[0]) is is_layer


def test_silu_is_found_by_its_two_readers(graph):
    before_silu = [t for t in graph.activations() if graph.silu(t) is not None]
    assert len(before_silu) == 57, "one for each activated convolution"
    for tensor in before_silu:
        assert graph.producer[graph.silu(tensor)].kind == "MUL"


def test_a_layer_is_named_after_its_output_and_has_its_silu(graph):
    layers = graph.layers()
    assert len(layers) == sum(graph.is_layer(op) for op in graph.operations) == 63
    kinds = [tuple(op.kind for op in operations) for operations in layers.values()]
    assert kinds.count(("CONV_2D", "LOGISTIC", "MUL")) == 57
    assert kinds.count(("CONV_2D",)) == 6
    for name, operations in layers.items():
        assert graph.name(operations[-1].outputs[0]) == name


def test_names_shapes_and_types(graph):
    (source,) = graph.inputs
    assert graph.shape(source) == (1, 160, 160, 3)
    assert graph.dtype(source) == "FLOAT32"
    assert graph.shape(graph.outputs[0]) == (1, 8, 525)
    assert graph.constant(source) is None
    assert graph.output_order() == [0]


def test_a_graph_owns_its_bytes_and_passes_over_what_is_behind_them(detector, graph):
    assert graph.content is detector
    behind = Graph(detector + b"PK\3\4 metadata")
    assert behind.operations == graph.operations
    assert behind.content.endswith(b"metadata")


@pytest.mark.parametrize(("activated", "decoding"), [(True, []), (False, ["TRANSPOSE"])])
def test_the_activation_behind_the_last_convolution_is_no_box_decoding(activated, decoding):
    network = Network(1, 8, 8, 3)
    end = network.conv(network.input, np.ones((4, 3, 3, 3)))
    end = network.silu(end) if activated else end
    if decoding:
        end = network.add("TRANSPOSE", (end, network.constant([0, 3, 1, 2], np.int32)), (1, 4, 8, 8))
    assert [op.kind for op in Graph(network.content(end)).decoding()] == decoding


def test_a_sigmoid_of_its_own_is_box_decoding():
    network = Network(1, 8, 8, 3)
    layer = network.conv(network.input, np.ones((4, 3, 3, 3)))
    graph = Graph(network.content(network.add("LOGISTIC", (layer,), network.shape(layer))))
    assert [op.kind for op in graph.decoding()] == ["LOGISTIC"]
    assert graph.feeds_sigmoid(layer)
    assert not graph.feeds_sigmoid(graph.outputs[0])
    assert graph.feeds_sigmoid(graph.outputs[0], frozenset(graph.outputs)), "the host takes it"


@pytest.mark.parametrize(
    ("activation", "homogeneous"), [("NONE", True), ("RELU", True), ("RELU6", False), ("TANH", False)]
)
def test_activations_that_scale(activation, homogeneous):
    network = Network(1, 8, 8, 3)
    graph = Graph(network.content(network.conv(network.input, np.ones((4, 3, 3, 3)), activation=activation)))
    assert graph.homogeneous(graph.operations[0]) is homogeneous


def test_a_split_hands_on_what_it_reads_second():
    network = Network(1, 8, 8, 4)
    half = network.add("SPLIT", (network.constant(3, np.int32), network.input), (1, 8, 8, 2))
    other = network.add("SLICE", (network.input, network.constant([0] * 4, np.int32)), (1, 8, 8, 2))
    graph = Graph(network.content(half, other))
    assert [graph.source(op) for op in graph.operations] == [network.input] * 2


def test_the_grid_and_the_real_values_of_what_is_in_integers(small, pictures):
    file = Graph(calibrate(small, pictures).quantize(Head.INT8, Granularity.CHANNEL, IO.INT8))
    layers = [op for op in file.operations if op.kind == "CONV_2D"]
    originals = [op for op in small.operations if op.kind == "CONV_2D"]
    for layer, original in zip(layers, originals, strict=True):
        weights, before = file.dequantized(layer.inputs[1]), small.constant(original.inputs[1])
        steps = np.abs(before).reshape(len(before), -1).max(1) / 127
        assert (np.abs(weights - before).reshape(len(before), -1).max(1) <= 0.51 * steps).all()
        assert file.dequantized(layer.inputs[2]).dtype == np.float32
        assert len(file.grid(layer.outputs[0]).scale) == 1
        assert file.dequantized(layer.outputs[0]) is None, "it is computed"
    assert small.grid(originals[0].outputs[0]) is None
    assert small.dequantized(originals[0].inputs[1]) is None, "it is in float"


def test_the_gates_of_silus_are_no_other_sigmoids(small):
    sigmoids = [op.outputs[0] for op in small.operations if op.kind == "LOGISTIC"]
    *gates, scores = sigmoids
    assert small.silu_gates() == set(gates)
    assert scores in small.outputs
