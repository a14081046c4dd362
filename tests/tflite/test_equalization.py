import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from torch import nn

from yolo_edgequant import pipeline
from yolo_edgequant.tflite.conversion import to_tflite
from yolo_edgequant.tflite.equalization import equalize, pairs
from yolo_edgequant.tflite.graph import Graph


def network(activation):
    """Convolutions, one of them depthwise, one behind pooling and one read twice, with channels of unlike ranges."""

    class Network(nn.Module):
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
            x = activation(two(activation(depthwise(activation(one(x))))))
            x = activation(three(nn.functional.max_pool2d(x, 2)))
            return left(x), right(x)

    torch.manual_seed(0)
    return Network().eval()


@pytest.fixture(scope="module")
def float_file():
    made = {}

    def convert(activation):
        if activation not in made:
            made[activation] = to_tflite(network(activation), torch.zeros(1, 3, 16, 16), channels_last=True)
        return made[activation]

    return convert


def outputs(content, image):
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    return [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]


IMAGES = list(np.random.default_rng(0).random((8, 1, 16, 16, 3), np.float32))


@pytest.mark.parametrize("activation", [nn.functional.relu, nn.functional.leaky_relu])
def test_what_the_model_computes_stays(float_file, activation):
    content = float_file(activation)
    made = equalize(content)
    assert made != content
    for one, other in zip(outputs(content, IMAGES[0]), outputs(made, IMAGES[0]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * np.abs(one).max())


def test_both_sides_of_a_pair_get_the_same_ranges(float_file):
    graph = Graph(equalize(float_file(nn.functional.relu)))
    found = pairs(graph)
    assert [(p.first.kind, p.second.kind) for p in found] == [
        ("CONV_2D", "DEPTHWISE_CONV_2D"),
        ("DEPTHWISE_CONV_2D", "CONV_2D"),
        ("CONV_2D", "CONV_2D"),
    ], "what two layers read is left alone"
    for pair in found:
        one, other = (graph.constant(op.inputs[1]) for op in (pair.first, pair.second))
        axis = 3 if pair.first.kind == "DEPTHWISE_CONV_2D" else 0
        ranges = np.abs(one).max(tuple(a for a in range(4) if a != axis))
        np.testing.assert_allclose(ranges, np.abs(other).max((0, 1, 2)), rtol=0.02)


@pytest.mark.parametrize("activation", [nn.functional.silu, nn.functional.relu6, nn.functional.hardswish])
def test_activations_that_do_not_scale_are_left_alone(float_file, activation):
    content = float_file(activation)
    assert equalize(content) is content


def test_one_scale_a_tensor_then_loses_less(float_file):
    def noise(content):
        made = pipeline.calibrate(content, IMAGES).quantise("raw", "tensor", "float", "minmax")
        pairs = zip(outputs(content, IMAGES[0]), outputs(made, IMAGES[0]), strict=True)
        return np.mean([np.square(a - b).mean() / a.var() for a, b in pairs])

    content = float_file(nn.functional.relu)
    assert noise(equalize(content)) < 0.3 * noise(content)
