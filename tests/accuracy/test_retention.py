"""What files of a real YOLOv8n keep on real images: half of its entry in models.toml, on 400 images and without stock.

All of it: ``yolo-edgequant zoo models.toml --only yolov8n``.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from yolo_edgequant.bench import models, zoo

ENTRY = next(entry for entry in models.read(Path(__file__).parents[2] / "models.toml") if entry.name == "yolov8n")
TRIED = {
    ("litert", "float", "channel"),
    ("tflite", "raw", "tensor"),
    ("tflite", "int8", "channel"),
    ("openvino", "float", "channel"),
}
ROWS = tuple(row for row in ENTRY.rows if (row.format, row.head, row.granularity) in TRIED)

pytestmark = pytest.mark.accuracy


@pytest.fixture(scope="module")
def rows(coco, reference_model, tmp_path_factory):
    entry = replace(ENTRY, checkpoint=reference_model, data=coco, val=("images/val",), rows=ROWS)
    result = zoo.measure(entry, tmp_path_factory.mktemp("zoo"), print)
    assert (result.error, result.calibrated, result.validated) == (None, 128, 400)
    return {(row.format, row.head, row.granularity): row for row in result.rows}


@pytest.mark.parametrize("case", sorted(TRIED), ids="-".join)
def test_retention(rows, case):
    row = rows[case]
    assert row.error is None
    assert row.retention_error < 0.02, "there is an error, and it does not excuse everything"
    assert not row.is_short, f"{row.retention:.2%} ± {row.retention_error:.2%} of {row.keeps:.2%}"
