import numpy as np

from yolo_edgequant.inspection.model import Tensor
from yolo_edgequant.inspection.reading import open_model


def test_a_grid():
    tensor = Tensor("t", (2,), "int8", np.array([0.5]), np.array([-128]), True, 2, np.array([-128, 127], np.int8), 256)
    assert (tensor.scale, tensor.span) == (0.5, 127.5)
    assert tensor.dequantized().tolist() == [0, 127.5]
    assert Tensor("t", (2,), "float32").scale is None
    assert Tensor("t", (-1, 2), "float32").is_dynamic


def test_who_writes_and_who_reads(files):
    model = open_model(files["int8"])
    first = model.nodes[0]
    assert model.producer[first.outputs[0]] is first
    assert first in model.consumers[model.inputs[0]]
    assert model.computed[0] == model.inputs[0]
    assert not any(model.tensors[tensor].constant for tensor in model.computed)


def test_bins_of_a_distribution_are_no_trained_weights(files):
    model = open_model(files["int8"])
    layers = [node for node in model.nodes if model.weights_of(node) is not None]
    convolutions = [node for node in model.nodes if node.kind == "CONV_2D"]
    expectations = [node for node in convolutions if node not in layers]
    assert len(expectations) == 1
    assert model.tensors[expectations[0].inputs[1]].shape[-1] == 16
