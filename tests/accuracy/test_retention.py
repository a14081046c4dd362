"""The acceptance table on a real YOLOv8n and real images, from one bench run."""

import json
from pathlib import Path

import pytest

from yolo_edgequant.bench.run import Row, Settings, run

THRESHOLDS = json.loads((Path(__file__).parent / "thresholds.json").read_text())
TRAIN_IMAGES = 341

pytestmark = pytest.mark.accuracy


@pytest.fixture(scope="module")
def rows(coco, reference_model, tmp_path_factory):
    calibration = THRESHOLDS["calibration"]
    share = calibration["images"] / TRAIN_IMAGES
    settings = Settings(reference_model, coco, calibration_split=calibration["split"], fraction=share)
    wanted = [
        Row(c["format"], c["head"], c["granularity"], "nncf" if c["format"] == "openvino" else "activation")
        for c in THRESHOLDS["retention"]
    ]
    done = run(settings, wanted, tmp_path_factory.mktemp("bench"), print)
    return {(r.format, r.head, r.granularity): r for r in done}


@pytest.mark.parametrize(
    "case", THRESHOLDS["retention"], ids=lambda c: "-".join((c["format"], c["head"], c["granularity"]))
)
def test_retention(rows, case):
    row = rows[case["format"], case["head"], case["granularity"]]
    assert row.error is None
    assert row.retention >= case["least"]
