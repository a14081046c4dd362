"""Exported files through the runtime and through Ultralytics: the same detections."""

import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from ultralytics import YOLO

from yolo_edgequant.demo.dataset import data_set
from yolo_edgequant.demo.train import WEIGHTS
from yolo_edgequant.errors import InferenceError, UnsupportedModelError
from yolo_edgequant.runtime import Detector


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """Exports the embedded detector on drawn images; the file and the folder with these."""
    made = {}

    def run(format, head):
        if (format, head) not in made:
            folder = tmp_path_factory.mktemp("model")
            data = data_set(folder / "data", 32, 12, 160, seed=5)
            model = YOLO(shutil.copy(WEIGHTS, folder))
            made[format, head] = (model.export(format=format, quantize=8, data=data, split="train", head=head), folder)
        return made[format, head]

    return run


def images(folder):
    return sorted((folder / "data/images/val").glob("*.png"))


@pytest.mark.slow
@pytest.mark.parametrize(("format", "head"), [("litert", "raw"), ("tflite", "int8"), ("openvino", "float")])
def test_the_same_detections_as_ultralytics(export, same_detections, format, head):
    """The other tasks: tests/accuracy/test_tasks.py."""
    path, folder = export(format, head)
    assert same_detections(path, "detect", images(folder)) > 12


@pytest.mark.slow
def test_classes_agnostic_and_most(export):
    path, folder = export("litert", "raw")
    image = cv2.imread(str(images(folder)[0]))
    everything = Detector(path, confidence=0.01)(image)
    assert len(set(everything.classes)) > 1
    wanted = everything.classes[0]
    assert set(Detector(path, confidence=0.01, classes=[wanted])(image).classes) == {wanted}
    assert len(Detector(path, confidence=0.01, most=3)(image)) == 3
    pictures = [cv2.imread(str(file)) for file in images(folder)]
    apart, together = (Detector(path, confidence=0.001, iou=0.3, agnostic=agnostic) for agnostic in (False, True))
    assert sum(len(together(picture)) for picture in pictures) < sum(len(apart(picture)) for picture in pictures)
    assert set(everything.as_dicts()[0]) == {"name", "class", "score", "box"}
    assert set(everything.milliseconds) == {"letterbox", "inference", "decoding"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((10, 10), np.uint8), r"not uint8 \(10, 10\)"),
        (np.zeros((10, 10, 3), np.float32), "not float32"),
        (np.zeros((0, 10, 3), np.uint8), "is empty"),
        ("picture.png", "not str"),
    ],
)
def test_an_image_that_is_none(export, image, said):
    with pytest.raises(InferenceError, match=said):
        Detector(export("litert", "raw")[0])(image)


@pytest.mark.parametrize(
    ("settings", "said"), [({"confidence": 2}, "confidence=2"), ({"iou": -1}, "iou=-1"), ({"most": 0}, "most=0")]
)
def test_settings_out_of_range(settings, said):
    with pytest.raises(InferenceError, match=said):
        Detector("model.tflite", **settings)


def test_files_that_are_not_ours(tmp_path):
    with pytest.raises(InferenceError, match="not found"):
        Detector(tmp_path / "missing.tflite")
    (tmp_path / "other.tflite").write_bytes(b"TFL3" * 10)
    with pytest.raises(UnsupportedModelError, match="does not say how to decode it"):
        Detector(tmp_path / "other.tflite")


def test_the_runtime_needs_numpy_alone():
    program = """
import sys
for name in ("torch", "ultralytics", "cv2", "rich", "wrapt", "typer", "packaging", "psutil", "yaml", "tensorflow"):
    sys.modules[name] = None  # as if it were not installed
import yolo_edgequant.runtime
print(sorted({name.split(".")[0] for name in sys.modules} - sys.stdlib_module_names))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-600:]
    loaded = set(eval(run.stdout))
    assert {"numpy", "yolo_edgequant"} <= loaded
    assert not loaded & {"PIL", "scipy", "matplotlib", "pandas", "openvino", "ai_edge_litert", "torchvision"}
