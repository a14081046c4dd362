import numpy as np
import pytest

from tests.graphs import Network
from tests.inspection.conftest import rounded
from yolo_edgequant.inspection.head import Head, in_pixels, lost_scores, spread, stride_step
from yolo_edgequant.inspection.reading import open_model
from yolo_edgequant.tflite.graph import Graph


def test_decoding_is_what_the_float_graph_says(files, float_file, detector):
    model = open_model(float_file)
    decoding = [op.index for op in Graph(detector).decoding()]
    assert [node.index for node in Head.of(model).nodes] == decoding
    quantized = open_model(files["int8"])
    inside = [node.kind for node in Head.of(quantized).nodes if node.kind != "QUANTIZE"]
    assert inside == [node.kind for node in Head.of(model).nodes]


def test_a_raw_file_only_moves(files):
    model = open_model(files["raw"])
    head = Head.of(model)
    assert {node.kind for node in head.nodes} == {"RESHAPE"}
    assert len(head.ends) == 6
    assert head.arithmetic(model) == []
    assert spread(model, head).activations == spread(model, head).all < 100


def test_ours_has_scales_close_together(files):
    model = open_model(files["int8"])
    head = Head.of(model)
    assert 1 < spread(model, head).activations < 1e3
    assert spread(model, head).all < 2e4
    assert in_pixels(model, head) == lost_scores(model, head) == []


def test_pixels_are_told_from_shares(decoder):
    model = open_model(decoder(0.05, 0.25, 0.25))
    head = Head.of(model)
    assert [model.tensors[t].span for t in in_pixels(model, head)] == [0.25 * 255, 0.25 * 255]
    assert stride_step(model, head) == pytest.approx(0.05 * 64, rel=0.01)
    (entry,) = lost_scores(model, head)
    assert entry[1] == pytest.approx(4)
    shares = open_model(decoder(0.05, 0.0039, 0.0039))
    assert in_pixels(shares, Head.of(shares)) == lost_scores(shares, Head.of(shares)) == []


def test_a_sigmoid_of_the_backbone_gives_no_scores(tmp_path):
    """An attention's weights, on a coarse scale beside other maps, before the last layer."""
    network, random = Network(1, 8, 8, 3), np.random.default_rng(0)
    maps = network.conv(network.input, random.normal(0, 0.4, (3, 3, 3, 3)))
    gate = network.add("LOGISTIC", (maps,), (1, 8, 8, 3))
    joined = network.add("CONCATENATION", (network.input, gate), (1, 8, 8, 6), axis=3)
    last = network.conv(joined, random.normal(0, 0.4, (2, 3, 3, 6)))
    scores = network.add("LOGISTIC", (last,), (1, 8, 8, 2))
    path = tmp_path / "attention.tflite"
    path.write_bytes(rounded(network.content(scores), {gate: 1 / 256, joined: 0.25, scores: 1 / 256}))
    model = open_model(path)
    assert [node.kind for node in Head.of(model).nodes] == ["LOGISTIC"]
    assert lost_scores(model, Head.of(model)) == []


def test_the_spread_is_of_largest_to_smallest(decoder):
    model = open_model(decoder(0.05, 0.25, 0.25))
    scales = spread(model, Head.of(model))
    assert scales.activations == pytest.approx(0.25 * 256)
    assert model.tensors[scales.largest].scale == pytest.approx(0.25)


def test_openvinos_bias_and_activation_end_a_layer(openvino_folder):
    model = open_model(openvino_folder)
    head = Head.of(model)
    assert [node.kind for node in head.nodes] == ["FakeQuantize", "Reshape"]
    assert model.tensors[head.ends[0]].shape == (1, 4, 32, 32)
