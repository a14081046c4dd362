import numpy as np
import pytest

from tests.graphs import Network


@pytest.fixture(scope="session")
def small():
    """A graph that quantizes in milliseconds: three convolutions, and a sigmoid as its box decoding.

    Its weights are just enough for ai-edge-quantizer to put them behind the FlatBuffer: 256 KB in 8 bits.
    """
    from yolo_edgequant.tflite.graph import Graph

    random = np.random.default_rng(0)
    network = Network(1, 16, 16, 3)
    first = network.silu(network.conv(network.input, random.normal(0, 0.4, (128, 3, 3, 3))))
    second = network.silu(network.conv(network.max_pool(first), random.normal(0, 0.04, (256, 3, 3, 128))))
    last = network.conv(second, random.normal(0, 0.05, (8, 3, 3, 256)))
    return Graph(network.content(network.add("LOGISTIC", (last,), network.shape(last))))


@pytest.fixture(scope="session")
def pictures():
    """Images for the small graph."""
    return list(np.random.default_rng(1).random((8, 1, 16, 16, 3), np.float32))
