import io
import json
from dataclasses import asdict

import pytest
from rich.console import Console

from yolo_edgequant.bench import sensitivity
from yolo_edgequant.bench.sensitivity import Row, Settings
from yolo_edgequant.demo.train import SIZE, WEIGHTS
from yolo_edgequant.errors import DataError, OptionError, UnsupportedModelError

ROWS = [
    Row("the file as it is", "", 0.30812, 0.98741, 0.00312),
    Row("stem", "in float", 0.3101, 0.9939, 0.0029, 0.00649, 0.00214),
    Row("SiLU's input", "not rounded", 0.3071, 0.9842, 0.0033, -0.0032, 0.0019),
]


def test_the_table_has_points_and_their_errors():
    lines = sensitivity.markdown(ROWS).splitlines()
    assert lines[0] == "| 8 bits | part | mAP50-95 | retention | ± | difference | ± |"
    assert lines[2:] == [
        "| all | the file as it is | 0.3081 | 98.7% | 0.31 | - | - |",
        "| all but | stem | 0.3101 | 99.4% | 0.29 | +0.65 | 0.21 |",
        "| all but, in the float graph | SiLU's input | 0.3071 | 98.4% | 0.33 | -0.32 | 0.19 |",
    ]
    out = io.StringIO()
    Console(file=out, width=160).print(sensitivity.table(ROWS))
    assert all(cell.strip() in out.getvalue() for line in lines[2:] for cell in line.strip("|").split("|"))


def test_json_has_every_field(tmp_path):
    sensitivity.save(ROWS, tmp_path / "new" / "rows.json")
    assert json.loads((tmp_path / "new" / "rows.json").read_text()) == [asdict(row) for row in ROWS]


@pytest.mark.parametrize("name", ["openvino", "saved_model", "onnx"])
def test_other_formats_are_refused(name):
    with pytest.raises(OptionError, match=f"'{name}' is not one that sensitivity is for: litert, tflite"):
        sensitivity.run(Settings(WEIGHTS, WEIGHTS, name, (160, 160)), Console(quiet=True))


def test_a_task_without_boxes_is_refused(monkeypatch):
    original = sensitivity.YOLO
    monkeypatch.setattr(sensitivity, "YOLO", lambda path: original("yolov8n-cls.yaml"))
    with pytest.raises(UnsupportedModelError, match="for models that find boxes; this is a classify model"):
        sensitivity.run(Settings(WEIGHTS, WEIGHTS, "litert", (160, 160)), Console(quiet=True))


def test_a_missing_split_is_refused(shapes_data):
    with pytest.raises(DataError, match=r"no images: .*split='train and other'"):
        sensitivity.run(Settings(WEIGHTS, shapes_data, "litert", (160, 160), split="other"), Console(quiet=True))


@pytest.mark.export
def test_a_table_of_the_small_detector(shapes_data, monkeypatch):
    three = {("alone", "weights"), ("in float", "stem"), ("not rounded", "nothing")}
    all_of_them = sensitivity.variants
    monkeypatch.setattr(
        sensitivity, "variants", lambda *arguments: [v for v in all_of_them(*arguments) if (v.kind, v.name) in three]
    )
    out = io.StringIO()
    settings = Settings(WEIGHTS, shapes_data, "litert", (SIZE, SIZE), options={"head": "float"})
    rows = sensitivity.run(settings, Console(file=out, width=100))
    assert [(row.kind, row.name) for row in rows] == [("", "the file as it is"), *sorted(three)]
    assert [line for line in out.getvalue().splitlines() if line.startswith("[")] == [
        "[1/3] alone: weights",
        "[2/3] all but: stem",
        "[3/3] all but, in the float graph: nothing",
    ]
    first, *others = rows
    assert (first.difference, first.difference_error) == (None, None)
    for row in rows:
        assert 0.9 < row.retention < 1.05
        assert 0 < row.retention_error < 0.05
    for row in others:
        assert row.difference == pytest.approx(row.retention - first.retention)
        assert 0 < row.difference_error < 0.05
