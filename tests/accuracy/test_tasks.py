"""Small models trained on drawn images, of other tasks and NMS-free, through their files.

Retention, FP32 of the same run; and the runtime's detections, which are Ultralytics'.
"""

import json
import shutil
from pathlib import Path

import pytest
from ultralytics import YOLO

from yolo_edgequant.demo.dataset import data_set
from yolo_edgequant.upstream.validation import accuracy

THRESHOLDS = json.loads((Path(__file__).parent / "thresholds.json").read_text())["tasks"]
WEIGHTS = Path(__file__).parents[1] / "weights"
MODELS = {"segment": "shapes-seg", "pose": "shapes-pose", "obb": "shapes-obb", "detect": "shapes26"}

pytestmark = pytest.mark.export


@pytest.fixture(scope="module")
def fp32(tmp_path_factory):
    """Of each task: a copy of the checkpoint, the data, and the accuracy by `nms`."""
    known = {}

    def run(task, nms):
        if task not in known:
            folder = tmp_path_factory.mktemp(task)
            data = data_set(folder / "data", 128, 200, 160, seed=1, task=task)
            known[task] = (Path(shutil.copy(WEIGHTS / f"{MODELS[task]}.pt", folder)), data, {})
        checkpoint, data, by_nms = known[task]
        if nms not in by_nms:
            by_nms[nms] = accuracy(YOLO(checkpoint), data, imgsz=160, nms=nms)
        return checkpoint, data, by_nms[nms]

    return run


@pytest.fixture(scope="module")
def exported(fp32):
    """Of each case: the file, the data, and FP32's accuracy."""
    files = {}

    def run(task, nms, format, head):
        case = (task, nms, format, head)
        if case not in files:
            checkpoint, data, best = fp32(task, nms)
            settings = {"data": data, "split": "train", "imgsz": 160, "head": head, "nms": nms}
            file = Path(YOLO(checkpoint).export(format=format, quantize=8, **settings))
            kept = file.rename(file.with_name(f"{head}_{nms}_{file.name}"))  # the next one has the same name
            files[case] = (kept, data, best)
        return files[case]

    return run


CASES = [
    ("segment", None, "tflite", "raw"),
    ("segment", None, "tflite", "int8"),
    ("segment", None, "openvino", "float"),
    ("pose", None, "litert", "float"),
    ("pose", None, "tflite", "raw"),
    ("pose", None, "tflite", "int8"),
    ("pose", None, "openvino", "float"),
    ("obb", None, "litert", "float"),
    ("obb", None, "tflite", "raw"),
    ("obb", None, "tflite", "int8"),
    ("detect", None, "tflite", "int8"),
    ("detect", False, "litert", "float"),
    ("detect", False, "tflite", "raw"),
    ("detect", False, "tflite", "int8"),
    ("detect", False, "openvino", "float"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_retention(exported, case):
    file, data, best = exported(*case)
    assert best > THRESHOLDS["fp32"]
    retention = accuracy(file, data, case[0], imgsz=160) / best
    print(f"{case}: {retention:.1%} of {best:.4f}")
    assert retention >= THRESHOLDS[case[-1]]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_runtime_finds_what_ultralytics_finds(exported, same_detections, case):
    file, data, _ = exported(*case)
    assert same_detections(file, case[0], sorted((data.parent / "images/val").glob("*.png"))[:12]) > 12
