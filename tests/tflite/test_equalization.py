import numpy as np
import pytest

from tests.graphs import Network
from yolo_edgequant.options import IO, Granularity, Head, RangeEstimator
from yolo_edgequant.tflite import calibrated, interpreter
from yolo_edgequant.tflite.equalization import equalize, pairs
from yolo_edgequant.tflite.graph import Graph


def activate(network, source, activation):
    if activation == "silu":
        return network.silu(source)
    kind = {"relu": "RELU", "leaky_relu": "LEAKY_RELU", "relu6": "RELU6", "hardswish": "HARD_SWISH"}[activation]
    return network.add(kind, (source,), network.shape(source), **({"alpha": 0.01} if kind == "LEAKY_RELU" else {}))


def by_hand(activation):
    """Convolutions, one of them depthwise, one behind pooling and one read twice, with channels of unlike ranges."""
    random = np.random.default_rng(1)
    network = Network(1, 16, 16, 3)

    def kernel(*shape, axis=0, spread=True):
        values = random.uniform(-1, 1, shape) / np.sqrt(np.prod(shape) / shape[axis])
        sizes = [-1 if a == axis else 1 for a in range(4)]
        return values * random.permutation(np.logspace(-1.5, 1.5, shape[axis])).reshape(sizes) if spread else values

    def conv(source, kernel, depthwise=False):
        bias = random.normal(0, 0.1, kernel.shape[3 if depthwise else 0])
        return network.conv(source, kernel, bias, depthwise=depthwise)

    x = activate(network, conv(network.input, kernel(8, 3, 3, 3)), activation)
    x = activate(network, conv(x, kernel(1, 3, 3, 8, axis=3), depthwise=True), activation)
    x = network.max_pool(activate(network, conv(x, kernel(8, 1, 1, 8)), activation))
    x = activate(network, conv(x, kernel(8, 3, 3, 8)), activation)
    left, right = (conv(x, kernel(4, 1, 1, 8, spread=False)) for _ in range(2))
    return Graph(network.content(left, right))


def converted(activation):
    """The same by way of PyTorch."""
    import torch
    from torch import nn

    from yolo_edgequant.tflite.conversion import to_tflite

    function = getattr(nn.functional, activation)

    class Layers(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(
                [
                    nn.Conv2d(3, 8, 3, padding=1),
                    nn.Conv2d(8, 8, 3, padding=1, groups=8),
                    nn.Conv2d(8, 8, 1),
                    nn.Conv2d(8, 8, 3, padding=1),
                    nn.Conv2d(8, 4, 1),
                    nn.Conv2d(8, 4, 1),
                ]
            )
            for layer in self.layers[:-2]:
                layer.weight.data *= torch.logspace(-1.5, 1.5, 8)[torch.randperm(8)].view(-1, 1, 1, 1)

        def forward(self, x):
            one, depthwise, two, three, left, right = self.layers
            x = function(two(function(depthwise(function(one(x))))))
            x = function(three(nn.functional.max_pool2d(x, 2)))
            return left(x), right(x)

    torch.manual_seed(0)
    return Graph(to_tflite(Layers().eval(), torch.zeros(1, 3, 16, 16), channels_last=True))


@pytest.fixture(scope="module", params=[by_hand, pytest.param(converted, marks=pytest.mark.export)])
def float_graph(request):
    graphs = {}

    def make(activation):
        if activation not in graphs:
            graphs[activation] = request.param(activation)
        return graphs[activation]

    return make


def outputs(graph, pictures):
    run = interpreter.run(graph.content, pictures[:1])
    return [tensor.values(output) for tensor, output in zip(run.tensors, run.outputs[0], strict=True)]


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_what_the_model_computes_stays(float_graph, pictures, activation):
    graph = float_graph(activation)
    equal = equalize(graph)
    assert equal.content != graph.content
    for one, other in zip(outputs(graph, pictures), outputs(equal, pictures), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * np.abs(one).max())


def test_both_sides_of_a_pair_get_the_same_ranges(float_graph):
    graph = equalize(float_graph("relu"))
    neighbours = pairs(graph)
    assert [(pair.first.kind, pair.second.kind) for pair in neighbours] == [
        ("CONV_2D", "DEPTHWISE_CONV_2D"),
        ("DEPTHWISE_CONV_2D", "CONV_2D"),
        ("CONV_2D", "CONV_2D"),
    ], "what two layers read is left alone"
    for pair in neighbours:
        one, other = (graph.constant(op.inputs[1]) for op in (pair.first, pair.second))
        axis = 3 if pair.first.kind == "DEPTHWISE_CONV_2D" else 0
        ranges = np.abs(one).max(tuple(a for a in range(4) if a != axis))
        np.testing.assert_allclose(ranges, np.abs(other).max((0, 1, 2)), rtol=0.02)


@pytest.mark.parametrize("activation", ["silu", "relu6", "hardswish"])
def test_activations_that_do_not_scale_are_left_alone(float_graph, activation):
    graph = float_graph(activation)
    assert equalize(graph) is graph


@pytest.mark.parametrize(("activation", "count"), [("RELU", 1), ("NONE", 1), ("RELU6", 0), ("TANH", 0)])
def test_activations_that_are_part_of_a_convolution(activation, count):
    network = Network(1, 4, 4, 3)
    source = network.conv(network.input, np.ones((4, 3, 3, 3)), activation=activation)
    assert len(pairs(Graph(network.content(network.conv(source, np.ones((2, 1, 1, 4))))))) == count


def test_one_scale_a_tensor_then_loses_less(float_graph, pictures):
    def noise(graph):
        statistics = calibrated.calibrate(graph, pictures, estimator=RangeEstimator.MINMAX)
        quantized = Graph(statistics.quantize(Head.RAW, Granularity.TENSOR, IO.FLOAT))
        both = zip(outputs(graph, pictures), outputs(quantized, pictures), strict=True)
        return np.mean([np.square(a - b).mean() / a.var() for a, b in both])

    graph = float_graph("relu")
    assert noise(equalize(graph)) < 0.3 * noise(graph)
