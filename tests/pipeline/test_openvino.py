import json
from pathlib import Path

import pytest
from ultralytics import YOLO

from yolo_edgequant import contract

pytestmark = pytest.mark.export


def test_precision_is_measured_on_the_calibration_images(shapes_model, shapes_data, caplog):
    options = {"quantize": 8, "data": shapes_data, "split": "train", "imgsz": 160, "min_retention": 0.9}
    folder = Path(YOLO(shapes_model).export(format="openvino", precision="auto", **options))
    kept = contract.read(folder).in_float
    assert kept.layers == 0
    assert kept.retention > 0.95
    assert f"0 layers in float: retention {kept.retention:.1%}" in caplog.text
    said = json.loads((folder / "sensitivity.json").read_text())
    assert len(said["layers"]) > 50
    assert (folder / "sensitivity.png").stat().st_size > 10_000
