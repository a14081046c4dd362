"""Exported files through the runtime and through Ultralytics: the same detections."""

import shutil

import cv2
import numpy as np
import pytest
from ultralytics import YOLO

from yolo_edgequant.demo.dataset import data_set
from yolo_edgequant.demo.train import WEIGHTS
from yolo_edgequant.errors import InferenceError
from yolo_edgequant.runtime import Detector

pytestmark = pytest.mark.export


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """Exports the embedded detector on drawn images; the file and the folder with these."""
    files = {}

    def run(format, head):
        if (format, head) not in files:
            folder = tmp_path_factory.mktemp("model")
            data = data_set(folder / "data", 32, 12, 160, seed=5)
            model = YOLO(shutil.copy(WEIGHTS, folder))
            files[format, head] = (model.export(format=format, quantize=8, data=data, split="train", head=head), folder)
        return files[format, head]

    return run


def images(folder):
    return sorted((folder / "data/images/val").glob("*.png"))


@pytest.mark.parametrize(("format", "head"), [("litert", "raw"), ("tflite", "int8"), ("openvino", "float")])
def test_the_same_detections_as_ultralytics(export, same_detections, format, head):
    """The other tasks: tests/accuracy/test_tasks.py."""
    path, folder = export(format, head)
    assert same_detections(path, "detect", images(folder)) > 12


def test_classes_agnostic_nms_and_max_det(export):
    path, folder = export("litert", "raw")
    image = cv2.imread(str(images(folder)[0]))
    everything = Detector(path, conf=0.01)(image)
    assert len(set(everything.classes)) > 1
    wanted = everything.classes[0]
    assert set(Detector(path, conf=0.01, classes=[wanted])(image).classes) == {wanted}
    assert len(Detector(path, conf=0.01, max_det=3)(image)) == 3
    pictures = [cv2.imread(str(file)) for file in images(folder)]
    apart, together = (Detector(path, conf=0.001, iou=0.3, agnostic_nms=agnostic) for agnostic in (False, True))
    assert sum(len(together(picture)) for picture in pictures) < sum(len(apart(picture)) for picture in pictures)
    assert set(everything.as_dicts()[0]) == {"name", "class", "score", "box"}
    assert set(everything.milliseconds) == {"letterbox", "inference", "decoding"}


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
