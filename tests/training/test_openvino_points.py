"""Every point of an INT8 OpenVINO model is found in its model's forward pass."""

from pathlib import Path

import numpy as np
import pytest
from torch import nn
from ultralytics import YOLO

from yolo_edgequant import finetuning
from yolo_edgequant.demo.dataset import data_set
from yolo_edgequant.errors import RecipeError
from yolo_edgequant.options import Granularity
from yolo_edgequant.targets.formats import Format
from yolo_edgequant.training.openvino_points import OpenVINOPoints

TESTED = Path(__file__).parents[1] / "weights"


@pytest.fixture
def points():
    """Of a file that rounds two tensors, and with its boxes decoded two more."""
    one = OpenVINOPoints.__new__(OpenVINOPoints)
    prints = {name: np.array([8.0, number, number, -number, number]) for number, name in enumerate("abcd", 1)}
    one.fingerprints = {name: prints[name] for name in "ab"}
    one.ranges = {"a": (0.0, 1.0), "b": (-1.0, 1.0)}
    one._int8 = (prints, {name: (-float(number), 1.0) for number, name in enumerate("abcd", 1)})
    return one


def test_what_the_file_rounds_has_to_be_computed(points):
    points.check({3: "a", 5: "b"}, {})
    with pytest.raises(RecipeError, match="the file rounds 'b', which the model's forward pass never computes"):
        points.check({3: "a"}, {})


def test_all_ranges_are_free(points):
    assert points.fixed([], {}) == {}


def test_box_decoding_is_what_training_never_computes(points):
    computed = {7: points.fingerprints["a"], 9: points.fingerprints["b"]}
    assert points.decoding(computed) == [("FakeQuantize", -3.0, 1.0), ("FakeQuantize", -4.0, 1.0)]


@pytest.mark.export
@pytest.mark.parametrize("weights", ["shapes26", "shapes-pose"])
def test_every_point_of_a_file_is_found_in_the_model(tmp_path, shapes_data, weights):
    model = YOLO(TESTED / f"{weights}.pt")
    data = shapes_data if model.task == "detect" else data_set(tmp_path, 16, 4, 160, seed=5, task=model.task)
    quantization = finetuning._points(model, str(data), Format.OPENVINO, Granularity.CHANNEL, 160)
    convolutions = [name for name, m in model.model.named_modules() if isinstance(m, nn.Conv2d)]
    assert len(quantization.layers) >= len([name for name in convolutions if "dfl" not in name])
    assert len(quantization.points) >= len(quantization.layers) / 2
    assert quantization.head
