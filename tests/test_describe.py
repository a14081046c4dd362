import pytest
from torch import nn
from ultralytics import YOLO

import yolo_edgequant
from yolo_edgequant.demo.train import WEIGHTS
from yolo_edgequant.errors import UnsupportedModelError
from yolo_edgequant.training.fake_quantization import FakeQuantization


def test_a_model_says_what_was_changed_in_it():
    model = YOLO(WEIGHTS)
    assert yolo_edgequant.describe(model).startswith("unchanged")
    yolo_edgequant.swap_activation(model, "relu6")
    model.model.add_module("fake_quantization", FakeQuantization({0: (0.0, 6.0)}, (), {0}, "tensor", "tflite"))
    assert yolo_edgequant.describe(model).splitlines() == [
        "activations: relu6, swapped in",
        "trained quantization-aware: for 'tflite', weights per tensor, rounded at 1 points",
    ]
    assert yolo_edgequant.describe(model.model) == yolo_edgequant.describe(model)
    assert yolo_edgequant.describe(nn.SiLU()).startswith("unchanged")


def test_exported_files_are_referred_to_their_metadata(tmp_path):
    (tmp_path / "x.tflite").touch()
    with pytest.raises(UnsupportedModelError, match=r"x.tflite' is no PyTorch model"):
        yolo_edgequant.describe(YOLO(tmp_path / "x.tflite", task="detect"))


def test_without_a_model_it_is_the_patches():
    assert "--- a/ultralytics/" in yolo_edgequant.describe()
