import numpy as np
import pytest

from tests.graphs import Network
from yolo_edgequant.tflite import interpreter, packing
from yolo_edgequant.tflite.graph import Graph
from yolo_edgequant.tflite.weights import WeightEditor


@pytest.fixture
def twins():
    """Two layers with one bias: the first two read one tensor, the third another tensor with the same buffer."""
    network = Network(1, 4, 4, 3)
    kernels = np.random.default_rng(0).normal(0, 1, (3, 2, 3, 3, 3))
    for kernel in kernels:
        network.conv(network.input, kernel, [0.5, -0.5])
    model = network._model
    main = model.subgraphs[0]
    one, two, three = main.operators
    two.inputs[2] = one.inputs[2]
    main.tensors[three.inputs[2]].buffer = main.tensors[one.inputs[2]].buffer
    return Graph(network.content(*(op.outputs[0] for op in main.operators)))


def test_a_shared_constant_is_divided(twins):
    editor = WeightEditor(twins)
    editor.replace(twins.operations[0], 2, np.array([7.0, 8.0]))
    changed = Graph(editor.content())
    assert changed.constant(changed.operations[0].inputs[2]).tolist() == [7, 8]
    for index in (1, 2):
        assert changed.constant(changed.operations[index].inputs[2]).tolist() == [0.5, -0.5]
    assert changed.operations[1:] == twins.operations[1:], "tensors keep their indices"
    assert [op.outputs for op in changed.operations] == [op.outputs for op in twins.operations]
    image = np.ones((1, 4, 4, 3), np.float32)
    before, after = (interpreter.run(graph.content, [image]).outputs[0] for graph in (twins, changed))
    np.testing.assert_allclose(after[0] - before[0], np.broadcast_to([6.5, 8.5], (1, 4, 4, 2)), rtol=1e-5)
    np.testing.assert_array_equal(after[1], before[1])


def test_a_constant_of_one_layer_is_replaced_in_place(twins):
    op = twins.operations[1]
    kernel = np.full(twins.shape(op.kernel), 0.25)
    editor = WeightEditor(twins)
    editor.replace(op, 1, kernel)
    changed = Graph(editor.content())
    assert changed.operations == twins.operations
    np.testing.assert_array_equal(changed.constant(op.kernel), kernel)
    counts = [len(packing.unpack(graph.content).buffers) for graph in (twins, changed)]
    assert counts[0] == counts[1]


def test_the_graph_stays_as_it_is(twins):
    before = twins.content
    editor = WeightEditor(twins)
    editor.replace(twins.operations[0], 1, np.zeros(twins.shape(twins.operations[0].kernel)))
    assert twins.content == before
    assert twins.constant(twins.operations[0].kernel).any()
    assert Graph(WeightEditor(twins).content()).operations == twins.operations
