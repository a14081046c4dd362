"""Every point of a ``.tflite`` file is found in its model's forward pass."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from ultralytics import YOLO

import yolo_edgequant
from yolo_edgequant import finetuning
from yolo_edgequant.demo.dataset import data_set
from yolo_edgequant.demo.train import WEIGHTS
from yolo_edgequant.errors import RecipeError, UnsupportedModelError
from yolo_edgequant.int8 import SIGMOID_RANGE
from yolo_edgequant.options import Granularity
from yolo_edgequant.targets.formats import Format
from yolo_edgequant.tflite.calibrated import calibrate
from yolo_edgequant.training.fake_quantization import Call
from yolo_edgequant.training.tflite_points import TFLitePoints, fingerprints_of

TESTED = Path(__file__).parents[1] / "weights"
SHAPE = (1, 3, 160, 160)


@pytest.fixture(scope="module")
def points(graph, images):
    """Of the embedded detector with its boxes decoded, in both places."""
    calibrated = calibrate(graph, images)
    return TFLitePoints(calibrated, calibrated, SHAPE)


def test_fingerprints_are_of_all_activations(graph, points):
    assert set(points.fingerprints) == set(graph.activations()) == set(fingerprints_of(graph, SHAPE))
    assert points.ranges.keys() >= points.fingerprints.keys()


def test_a_model_that_computes_what_the_file_does_passes(points):
    fingerprints = dict(enumerate(points.fingerprints.values()))
    points.check(dict(enumerate(points.fingerprints)), fingerprints)


def test_a_model_that_lacks_something_does_not(points):
    with pytest.raises(RecipeError, match="has no"):
        points.check({}, {})


def test_outputs_and_what_kernels_give_a_range_are_fixed(graph, points):
    output, other = points.fingerprints[graph.outputs[0]], points.fingerprints[graph.inputs[0]]
    calls = [Call("conv2d", (8,)), Call("sigmoid", (8,)), Call("softmax", (8,)), Call("add", (8,))]
    found = points.fixed(calls, {0: output, 1: other, 2: other + 1, 3: other + 2})
    assert found == {0: None, 1: SIGMOID_RANGE, 2: SIGMOID_RANGE}


def test_box_decoding_is_noted_in_order(points):
    decoding = points.decoding({})
    assert [kind for kind, _, _ in decoding] == ["CONV_2D", "MUL", "MUL", "SUB", "ADD", "ADD"]
    assert all(low < high for _, low, high in decoding)


@pytest.mark.export
@pytest.mark.parametrize(
    ("weights", "activation"),
    [
        (WEIGHTS, "relu"),  # not equalized: its weights are those that are trained
        (TESTED / "shapes26.pt", None),  # two branches, and no distribution of sides
        (TESTED / "shapes-seg.pt", None),
    ],
    ids=["relu", "26", "segment"],
)
def test_every_point_of_a_file_is_found_in_the_model(tmp_path, shapes_data, weights, activation):
    model = YOLO(weights)
    data = shapes_data if model.task == "detect" else data_set(tmp_path, 16, 4, 160, seed=5, task=model.task)
    if activation is not None:
        yolo_edgequant.swap_activation(model, activation)
    quantization = finetuning._points(model, str(data), Format.TFLITE, Granularity.TENSOR, 160)
    convolutions = [name for name, m in model.model.named_modules() if isinstance(m, nn.Conv2d)]
    assert len(quantization.layers) >= len([name for name in convolutions if "dfl" not in name])
    assert len(quantization.points) >= len(quantization.layers) / 2
    assert quantization.head
    assert all(np.isfinite(range_).all() for range_ in quantization.ranges().values())


@pytest.mark.export
def test_a_file_that_computes_what_training_does_not_is_refused(tmp_path):
    """Rotated boxes: the file has the angle of each level, training that of all levels at once."""
    data = data_set(tmp_path, 16, 4, 160, seed=5, task="obb")
    with pytest.raises(UnsupportedModelError, match="cannot be trained quantization-aware for 'tflite'"):
        finetuning._points(YOLO(TESTED / "shapes-obb.pt"), str(data), Format.TFLITE, Granularity.TENSOR, 160)


def test_the_probe_is_as_the_graph_takes_it(graph):
    """The embedded detector's graph is NHWC, its model NCHW."""
    assert graph.shape(graph.inputs[0]) == (1, 160, 160, 3)
    assert torch.Size(SHAPE) == (1, 3, 160, 160)
    prints = fingerprints_of(graph, SHAPE)
    assert prints[graph.inputs[0]][0] == 3 * 160 * 160
