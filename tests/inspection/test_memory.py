import numpy as np
import pytest

from tests.graphs import Network
from yolo_edgequant.inspection.memory import memory
from yolo_edgequant.inspection.reading import open_model
from yolo_edgequant.tflite import packing


@pytest.fixture
def branches(tmp_path):
    """x, a = logistic(x), b = logistic(a), b * x: while b is made from a, x is kept."""
    network = Network(1, 8, 8, 2)
    first = network.add("LOGISTIC", (network.input,), (1, 8, 8, 2))
    second = network.add("LOGISTIC", (first,), (1, 8, 8, 2))
    path = tmp_path / "branches.tflite"
    path.write_bytes(network.content(network.add("MUL", (second, network.input), (1, 8, 8, 2))))
    return path


def test_what_is_alive_at_once(branches):
    one = 8 * 8 * 2 * 4
    result = memory(open_model(branches))
    assert (result.weights, result.activations, result.largest) == (0, 3 * one, one)


def test_the_peak_counts_wherever_it_is(tmp_path):
    """Sides halve behind the wide layer: less is alive at the end, and all of it was never alive at once."""
    network, random = Network(1, 8, 8, 2), np.random.default_rng(0)
    wide = network.conv(network.input, random.normal(0, 0.4, (16, 3, 3, 2)))
    output = network.max_pool(network.max_pool(wide))
    path = tmp_path / "peak.tflite"
    path.write_bytes(network.content(output))
    x, a, b = (4 * count for count in (8 * 8 * 2, 8 * 8 * 16, 4 * 4 * 16))
    result = memory(open_model(path))
    assert (result.activations, result.largest) == (max(x + a, a + b), a)


def test_input_sizes_that_fit(branches):
    result = memory(open_model(branches))
    assert result.sides(result.activations * 16**2, 8) == [64, 96, 128]
    assert result.sides(10, 8) == []
    assert result.sides(10**9, 0) == []


def test_nothing_is_known_of_dynamic_shapes(branches):
    model = packing.unpack(branches.read_bytes())
    model.subgraphs[0].tensors[0].shapeSignature = [-1, 8, 8, 2]
    branches.write_bytes(packing.pack(model))
    result = memory(open_model(branches))
    assert (result.activations, result.sides(10**9, 8)) == (None, [])


def test_a_constant_counts_by_its_bytes(tmp_path):
    network = Network(1, 4, 4, 3)
    path = tmp_path / "conv.tflite"
    path.write_bytes(network.content(network.conv(network.input, np.ones((5, 3, 3, 3)))))
    assert memory(open_model(path)).weights == 4 * (5 * 3 * 3 * 3 + 5)
