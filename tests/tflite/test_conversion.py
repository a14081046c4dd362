import sys
import types

import pytest
import torch
from torch import nn

from yolo_edgequant.tflite.conversion import to_tflite
from yolo_edgequant.errors import ConversionError
from yolo_edgequant.tflite.graph import Graph

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


def test_tensorflow_before_litert_torch_is_refused_instead_of_crashing(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", types.ModuleType("tensorflow"))
    monkeypatch.delitem(sys.modules, "litert_torch", raising=False)
    with pytest.raises(ConversionError, match="import litert_torch"):
        to_tflite(TwoOutputs(), IMAGE, False)
