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


def shifts(build, model):
    layers = score_alignment.score_layers(build.float_model, len(build.contract.names))
    return score_alignment.measure(model, build.float_model, layers, build.calibration)


@pytest.mark.parametrize(
    ("corrections", "ranges"), [("all", "activation"), ("scores", "activation"), ("scores", "nncf")]
)
def test_scores_are_aligned(build, corrections, ranges):
    asked = replace(build, contract=replace(build.contract, corrections=corrections, ranges=ranges))
    before, after = (shifts(build, model) for model in (build.quantized, asked.corrected(build.quantized)))
    assert any(shift.systematic for shift in before)
    assert not any(shift.systematic for shift in after)


@pytest.mark.parametrize("facts", [{"corrections": "bias"}, {"corrections": "none"}, {"ranges": "nncf"}])
def test_scores_stay_where_that_was_not_asked_for(build, facts):
    other = replace(build, contract=replace(build.contract, **facts))
    assert other.corrected(build.quantized) is build.quantized


def test_scores_stay_where_nothing_was_calibrated(build):
    assert replace(build, calibration=()).corrected(build.quantized) is build.quantized


def test_biases_are_corrected_where_that_was_asked_for(build, caplog):
    images = [build.calibration[number] for number in range(2)]
    said = {}
    for corrections in ("all", "bias", "scores", "none"):
        caplog.clear()
        calibrate(build.float_model, replace(build.contract, corrections=corrections), images)
        said[corrections] = "bias correction" in caplog.text
    assert said == {"all": True, "bias": True, "scores": False, "none": False}
