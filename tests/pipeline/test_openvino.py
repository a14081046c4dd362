import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from ultralytics import YOLO

from yolo_edgequant import contract
from yolo_edgequant.demo.train import WEIGHTS
from yolo_edgequant.openvino import score_alignment
from yolo_edgequant.patches import openvino as patch
from yolo_edgequant.pipeline.openvino import calibrate

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


@pytest.fixture(scope="module")
def build(shapes_data, tmp_path_factory):
    """Of the committed detector, with what an export calibrated it on."""
    builds = []

    def kept(build, *_):
        builds.append(build)
        return build.quantized, build.contract

    checkpoint = shutil.copy(WEIGHTS, tmp_path_factory.mktemp("build"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(patch, "finish", kept)
        options = {"quantize": 8, "data": shapes_data, "split": "train", "imgsz": 160}
        YOLO(checkpoint).export(format="openvino", **options)
    return builds[0]


def test_scores_are_aligned(build):
    models = (build.quantized, build.corrected(build.quantized))
    before, after = (score_alignment.measure(model, build.logits, build.calibration) for model in models)
    assert any(shift.systematic for shift in before)
    assert not any(shift.systematic for shift in after)


def test_what_was_asked_for_is_corrected(build, caplog):
    images = [build.calibration[number] for number in range(2)]
    asked = {}
    for facts in ({"corrections": name} for name in ("all", "bias", "scores", "none")):
        caplog.clear()
        quantized, logits = calibrate(build.float_model, replace(build.contract, **facts), images)
        asked[facts["corrections"]] = ("bias correction" in caplog.text, len(logits))
        assert bool(logits) or replace(build, logits=logits).corrected(quantized) is quantized
    assert asked == {"all": (True, 3), "bias": (True, 0), "scores": (False, 3), "none": (False, 0)}


def test_what_is_left_to_nncf_is_not_aligned(build):
    images = [build.calibration[number] for number in range(2)]
    assert not calibrate(build.float_model, replace(build.contract, ranges="nncf"), images)[1]
