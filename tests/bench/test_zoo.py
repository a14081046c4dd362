import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from yolo_edgequant.bench import zoo
from yolo_edgequant.bench.models import Entry
from yolo_edgequant.bench.run import Row, WorkerError
from yolo_edgequant.errors import DataError, ModelsFileError
from yolo_edgequant.machine import Facts
from yolo_edgequant.upstream.models import YAML

FACTS = Facts("2026-01-31", "0.1.0", "abc1234", "3.11.7", {"numpy": "2.0"}, "A CPU", ("avx2",))
FP32 = Row("pytorch", "fp32", map=0.8, map50=0.9, retention=1.0, images=40)
GOOD = Row("tflite", "float", "channel", "activation", 0.79, 0.9, 0.9875, retention_error=0.004, images=40, keeps=0.985)
RESULT = zoo.Result(
    "shapes", "shapes.pt", "detect", (160, 160), False, "shapes", 128, 40, 2, FACTS, (FP32, GOOD), error=None
)


@pytest.fixture
def entry(tmp_path, shapes_data):
    checkpoint = tmp_path / "model.pt"
    checkpoint.touch()
    wanted = Row("tflite", "float", "channel", "activation", corrections="all", keeps=0.985)
    return Entry("one", checkpoint, "detect", shapes_data, (wanted,), imgsz=(160, 160), fraction=0.5)


@pytest.fixture
def ran(monkeypatch):
    """Stands for the bench and for loading checkpoints: its arguments; `ends` raises after the first row."""
    calls = {"settings": [], "ends": {}, "tasks": {}}

    def run(settings, rows, folder, report, show):
        calls["settings"].append(settings)
        report("validating")
        show([FP32])
        if error := calls["ends"].get(settings.model.name):
            raise error
        return [FP32, *(replace(row, retention=0.9875, retention_error=0.004) for row in rows)]

    def task(model, folder):
        if isinstance(outcome := calls["tasks"].get(model.name, "detect"), Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(zoo, "run", run)
    monkeypatch.setattr(zoo, "task", task)
    return calls


def test_an_entry_is_measured_as_it_says(entry, ran, tmp_path, shapes_data):
    told, shown = [], []
    result = zoo.measure(entry, tmp_path / "out", told.append, shown.append, threads=3, images=5)
    (settings,) = ran["settings"]
    assert (settings.model, settings.data, settings.imgsz) == (entry.checkpoint, shapes_data, (160, 160))
    assert (settings.calibration_split, settings.fraction, settings.threads) == ("train", 0.5, 3)
    assert (settings.images, settings.nms_free) == (5, False)
    assert (result.name, result.checkpoint, result.data) == ("one", "model.pt", "shapes.yaml")
    assert (result.calibrated, result.validated, result.threads) == (12, 40, 3)
    assert [row.retention for row in result.rows] == [1.0, 0.9875]
    assert (result.error, result.problems) == (None, ())
    assert (told, shown) == (["validating"], [[FP32]])


def test_other_folders_of_validation_images_are_put_into_a_yaml_of_its_own(entry, tmp_path, shapes_data):
    before = shapes_data.read_text()
    path = zoo.data_of(replace(entry, val=("images/val", "images/train")), tmp_path / "out")
    assert path == tmp_path / "out" / "data.yaml"
    content, original = YAML.load(path), YAML.load(shapes_data)
    assert content["val"] == ["images/val", "images/train"]
    assert {key: content[key] for key in ("path", "train", "names")} == {
        key: original[key] for key in ("path", "train", "names")
    }
    assert shapes_data.read_text() == before


def test_a_yaml_without_a_path_means_its_own_folder(entry, tmp_path, ran):
    folder = shutil.copytree(entry.data.parent, tmp_path / "copy")
    content = YAML.load(folder / "shapes.yaml")
    del content["path"]
    YAML.save(folder / "shapes.yaml", content)
    moved = replace(entry, data=folder / "shapes.yaml", val=("images/val", "images/train"))
    assert YAML.load(zoo.data_of(moved, tmp_path / "out"))["path"] == str(folder)
    assert zoo.measure(moved, tmp_path / "out", print).error is None


def test_images_are_drawn_for_the_task(entry, tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "CALIBRATION", 2)
    monkeypatch.setattr(zoo, "VALIDATION", 3)
    told = []
    path = zoo.data_of(replace(entry, data=None, task="pose"), tmp_path / "out", told.append)
    assert told == ["drawing 2 images to calibrate on and 3 to validate on"]
    assert "kpt_shape" in YAML.load(path)
    assert len(list((tmp_path / "out" / "data" / "images" / "val").iterdir())) == 3


def test_a_model_that_fails_keeps_its_rows_and_leaves_the_others(entry, ran, tmp_path):
    other = replace(entry, name="two", checkpoint=tmp_path / "two.pt")
    ran["ends"]["model.pt"] = DataError("out of luck")
    told = []
    first, second = zoo.run_all([entry, other], tmp_path / "out", told.append)
    assert (first.rows, first.error, first.validated) == ((FP32,), "out of luck", 40)
    assert first.problems == ("one: out of luck",)
    assert (second.error, len(second.rows)) == (None, 2)
    assert told == [
        "loading 2 checkpoints",
        "model 1 of 2, one: validating",
        "model 2 of 2, two: validating",
    ]


def test_a_checkpoint_that_cannot_be_loaded_fails_alone(entry, ran, tmp_path):
    ran["tasks"]["model.pt"] = WorkerError("task failed: no checkpoint")
    other = replace(entry, name="two", checkpoint=tmp_path / "two.pt")
    first, second = zoo.run_all([entry, other], tmp_path / "out", print)
    assert (first.rows, first.problems) == ((), ("one: task failed: no checkpoint",))
    assert second.problems == ()
    assert [settings.model.name for settings in ran["settings"]] == ["two.pt"]


def test_a_wrong_task_is_said_before_anything_is_measured(entry, ran, tmp_path):
    ran["tasks"]["two.pt"] = "pose"
    other = replace(entry, name="two", checkpoint=tmp_path / "two.pt")
    with pytest.raises(ModelsFileError, match=r"^two: 'task' is 'detect', and 'two.pt' is a model of task 'pose'$"):
        list(zoo.run_all([entry, other], tmp_path / "out", print))
    assert ran["settings"] == []


def test_a_missing_folder_of_images_is_the_models_error(entry, ran, tmp_path):
    result = zoo.measure(replace(entry, val=("images/none",)), tmp_path / "out", print)
    assert result.rows == ()
    assert "images/none" in result.error
    assert "\n" not in result.error


def test_a_row_is_short_if_chance_does_not_explain_it():
    assert not replace(GOOD, retention=0.9771).is_short
    assert replace(GOOD, retention=0.9769).is_short
    assert replace(GOOD, retention=0.98, retention_error=None).is_short
    assert not replace(GOOD, keeps=None, retention=0.1).is_short
    assert not replace(GOOD, retention=None).is_short
    short = replace(RESULT, rows=(FP32, replace(GOOD, retention=0.9)))
    (problem,) = short.problems
    assert problem == "shapes, tflite float channel: keeps 90.00% ± 0.40%, and should 98.50%"


def test_a_row_that_failed_is_a_problem():
    (problem,) = replace(RESULT, rows=(FP32, replace(GOOD, retention=None, error="export failed"))).problems
    assert problem == "shapes, tflite float channel: export failed"


def test_results_are_the_same_after_saving_and_reading(tmp_path):
    failed = replace(RESULT, name="other", rows=(), error="out of luck", calibrated=None, validated=None)
    zoo.save([RESULT, failed], tmp_path / "new" / "zoo.json")
    assert zoo.load(tmp_path / "new" / "zoo.json") == [RESULT, failed]
    assert list(json.loads((tmp_path / "new" / "zoo.json").read_text())) == ["shapes", "other"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"a": {}}', '{"a": 3}', json.dumps({"a": {"rows": [{"column": 1}]}})], ids=str
)
def test_other_results_are_refused(tmp_path, text):
    (tmp_path / "zoo.json").write_text(text)
    with pytest.raises(ModelsFileError, match="has no results of this release") as caught:
        zoo.load(tmp_path / "zoo.json")
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelsFileError, match=r"results 'none.json' not found"):
        zoo.load(Path("none.json"))


def test_newer_results_take_the_place_of_older_ones(entry):
    old, new = replace(RESULT, name="b"), replace(RESULT, name="b", validated=7)
    other, gone = replace(RESULT, name="a"), replace(RESULT, name="gone")
    a, b, c = (replace(entry, name=name) for name in "abc")
    assert zoo.merged([gone, old, other], [new], [a, b, c]) == [other, new]


def test_a_result_is_held_to_what_is_expected_now(entry):
    stricter = replace(entry, name="shapes", rows=(replace(entry.rows[0], keeps=0.999),))
    (result,) = zoo.merged([RESULT], [], [stricter])
    assert result.rows == (FP32, replace(GOOD, keeps=0.999))
    (result,) = zoo.merged([result], [], [replace(stricter, rows=())])
    assert result.rows == (FP32, replace(GOOD, keeps=None))


@pytest.mark.export
def test_a_small_model_is_really_measured_and_one_that_is_broken_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "CALIBRATION", 16)
    monkeypatch.setattr(zoo, "VALIDATION", 24)
    (tmp_path / "broken.pt").write_bytes(b"no checkpoint")
    wanted = Row("tflite", "int8", "channel", "activation", corrections="all", keeps=0.5)
    checkpoint = Path(__file__).parents[1] / "weights" / "shapes-pose.pt"
    pose = Entry("pose", checkpoint, "pose", None, (wanted,), imgsz=(160, 160))
    broken = replace(pose, name="broken", checkpoint=tmp_path / "broken.pt")
    failed, measured = zoo.run_all([broken, pose], tmp_path / "out", print, threads=1)
    assert (failed.rows, measured.problems) == ((), ())
    assert "task failed" in failed.error
    assert (measured.calibrated, measured.validated, measured.error) == (16, 24, None)
    reference, row = measured.rows
    assert 0.6 < reference.map < 1
    assert 0.7 < row.retention < 1.1
    assert row.retention_error > 0
    with pytest.raises(ModelsFileError, match="is a model of task 'pose'"):
        list(zoo.run_all([replace(pose, task="segment")], tmp_path / "out", print))
