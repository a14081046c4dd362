import copy
import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

from yolo_edgequant.demo.train import SIZE, WEIGHTS
from yolo_edgequant.errors import ConversionError
from yolo_edgequant.tflite import interpreter
from yolo_edgequant.tflite.conversion import to_tflite
from yolo_edgequant.tflite.graph import Graph

pytestmark = pytest.mark.export

IMAGE = torch.zeros(1, 3, 16, 8)


class TwoOutputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)

    def forward(self, image):
        maps = self.layer(image)
        return maps.flatten(2), maps


def shapes(channels_last):
    graph = Graph(to_tflite(TwoOutputs().eval(), IMAGE, channels_last))
    return graph.shape(graph.inputs[0]), [graph.shape(t) for t in graph.outputs]


def test_layouts_of_images_and_maps():
    assert shapes(False) == ((1, 3, 16, 8), [(1, 4, 128), (1, 4, 16, 8)])
    assert shapes(True) == ((1, 16, 8, 3), [(1, 4, 128), (1, 16, 8, 4)])


def test_the_committed_graph_is_what_a_conversion_gives_today(graph, images):
    """The unit tests stand on it: the same operations in order, and outputs as near as its shorter weights allow."""
    from ultralytics import YOLO

    from yolo_edgequant.upstream.heads import decode_in_unit_square

    model = copy.deepcopy(YOLO(WEIGHTS).model).float().eval().requires_grad_(False).fuse()
    model.model[-1].export = True
    decode_in_unit_square(model.model[-1], (SIZE, SIZE))
    today = Graph(to_tflite(model, torch.zeros(1, 3, SIZE, SIZE), channels_last=True))
    assert [op.kind for op in today.operations] == [op.kind for op in graph.operations]
    for one, other in zip(today.operations, graph.operations, strict=True):
        assert [today.shape(t) for t in (*one.inputs, *one.outputs)] == [
            graph.shape(t) for t in (*other.inputs, *other.outputs)
        ]
        for a, b in zip(one.inputs, other.inputs, strict=True):
            if (committed := graph.constant(b)) is not None:
                np.testing.assert_allclose(today.constant(a), committed, atol=2**-10 + 1e-6)
    expected, outputs = (interpreter.run(content, images).outputs for content in (today.content, graph.content))
    for (one,), (other,) in zip(expected, outputs, strict=True):
        assert one[:, 4:].max() > 0.5
        seen = one[:, 4:].max(1)[0] > 0.05
        np.testing.assert_allclose(other[:, :4, seen], one[:, :4, seen], atol=0.01)
        np.testing.assert_allclose(other[:, 4:], one[:, 4:], atol=0.05)


def test_tensorflow_before_litert_torch_is_refused_instead_of_crashing(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", types.ModuleType("tensorflow"))
    monkeypatch.delitem(sys.modules, "litert_torch", raising=False)
    with pytest.raises(ConversionError, match="import litert_torch"):
        to_tflite(TwoOutputs(), IMAGE, False)
