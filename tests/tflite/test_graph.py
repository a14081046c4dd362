import torch
from torch import nn

from yolo_edgequant.tflite.conversion import to_tflite
from yolo_edgequant.tflite.graph import Graph


def test_head_is_all_behind_the_detection_convolutions(graph):
    head = graph.head()
    kinds = [op.kind for op in head]
    assert kinds.count("SOFTMAX") == 1
    assert kinds.count("CONV_2D") == 1, "the DFL expectation and no trained convolution"
    assert not any(graph.is_layer(op) for op in head)
    inside = {op.index for op in head}
    sources = {graph.producer[t] for op in head for t in op.inputs if t in graph.producer} - set(head)
    assert len(sources) == 6, "box and class convolution of three levels"
    assert all(graph.is_layer(op) and op.index not in inside for op in sources)


def test_every_convolution_but_the_expectation_is_a_layer(graph):
    convolutions = [op for op in graph.operations if op.kind == "CONV_2D"]
    assert sum(graph.is_layer(op) for op in convolutions) == len(convolutions) - 1


def test_silu_is_found_by_its_two_readers(graph):
    found = [t for t in graph.activations() if graph.silu(t) is not None]
    assert len(found) == 57, "one for each activated convolution"
    for tensor in found:
        assert graph.producer[graph.silu(tensor)].kind == "MUL"


def test_names_shapes_and_types(graph):
    (source,) = graph.inputs
    assert graph.shape(source) == (1, 160, 160, 3)
    assert graph.dtype(source) == "FLOAT32"
    assert graph.shape(graph.outputs[0]) == (1, 8, 525)
    assert graph.constant(source) is None


def test_the_activation_behind_the_last_convolution_is_no_head():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU()).eval()
    graph = Graph(to_tflite(model, torch.zeros(1, 3, 8, 8), channels_last=True))
    assert [op.kind for op in graph.head()] in ([], ["TRANSPOSE"])
