import re
from pathlib import Path

import pytest

from yolo_edgequant.bench import models
from yolo_edgequant.bench.run import FORMATS, Row
from yolo_edgequant.errors import ModelsFileError, OptionError

ROOT = Path(__file__).parents[2]
MINIMAL = """
[small]
checkpoint = "weights/small.pt"
task = "pose"
data = "shapes"
[small.keeps]
tflite.float.channel = 98.5
"""
WHOLE = """
[large]
checkpoint = "large.pt"
task = "detect"
data = "coco/coco.yaml"
val = ["images/val", "images/more"]
calibration_split = "val"
fraction = 0.25
imgsz = [480, 640]
nms_free = true
optional = true
stock = ["litert", "openvino"]
[large.keeps]
tflite.raw = { tensor = 98, channel = 99 }
openvino.int8.channel = 0
"""


def read(folder, text):
    (folder / "models.toml").write_text(text)
    return models.read(folder / "models.toml")


def test_an_entry_that_says_little_has_the_defaults(tmp_path):
    (entry,) = read(tmp_path, MINIMAL)
    kept = Row("tflite", "float", "channel", "activation", corrections="all", keeps=0.985)
    assert entry == models.Entry("small", tmp_path / "weights" / "small.pt", "pose", None, (kept,))
    assert (entry.imgsz, entry.fraction, entry.calibration_split, entry.val) == ((640, 640), 1.0, "train", ())
    assert not entry.is_optional


def test_an_entry_that_says_all(tmp_path):
    small, large = read(tmp_path, MINIMAL + WHOLE)
    assert (small.name, large.name, large.task) == ("small", "large", "detect")
    assert large.data == tmp_path / "coco" / "coco.yaml"
    assert (large.val, large.calibration_split, large.fraction) == (("images/val", "images/more"), "val", 0.25)
    assert (large.imgsz, large.nms_free, large.is_optional) == ((480, 640), True, True)
    assert [(row.format, row.head, row.granularity, row.ranges, row.keeps) for row in large.rows] == [
        ("litert", "stock", "-", "-", None),
        ("openvino", "stock", "-", "-", None),
        ("openvino", "int8", "channel", "activation", 0.0),
        ("tflite", "raw", "tensor", "activation", 0.98),
        ("tflite", "raw", "channel", "activation", 0.99),
    ]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('task = "pose"', "", "models.toml, small lacks 'task'"),
        (
            'task = "pose"',
            'task = "classify"',
            "models.toml, small: 'task' is 'classify', not one of detect, segment, ",
        ),
        ('task = "pose"', 'task = "pose"\ntsak = 1', "models.toml, small: unknown key 'tsak'"),
        ('task = "pose"', 'task = "pose"\nfraction = 0', "'fraction' is 0, not above 0 and at most 1"),
        ('task = "pose"', 'task = "pose"\nfraction = 1.5', "'fraction' is 1.5, not above 0 and at most 1"),
        ('task = "pose"', 'task = "pose"\nfraction = nan', "'fraction' is nan, not above 0 and at most 1"),
        ('task = "pose"', 'task = "pose"\nimgsz = [1, 2, 3]', "'imgsz' is [1, 2, 3], not a positive whole number or "),
        ('task = "pose"', 'task = "pose"\nimgsz = true', "'imgsz' is True, not a positive whole number or "),
        ('task = "pose"', 'task = "pose"\noptional = "yes"', "'optional' is 'yes', not true or false"),
        ('task = "pose"', 'task = "pose"\nval = ["x"]', "'val' is for folders of a data set, and 'shapes' are drawn"),
        ('task = "pose"', 'task = "pose"\nstock = ["onnx"]', "'stock' is 'onnx', not one of litert, tflite, "),
        ("tflite.float", "onnx.float", "models.toml, small, keeps: 'format' is 'onnx', not one of litert, tflite, "),
        ("tflite.float", "edgetpu.float", "'format' is 'edgetpu', not one of"),
        ("tflite.float", "tflite.flaot", "models.toml, small, keeps, tflite: 'head' is 'flaot', not one of int8, "),
        ("channel =", "layer =", "small, keeps, tflite, float: 'granularity' is 'layer', not one of channel, tensor"),
        ("tflite.float.channel", "openvino.float.tensor", "'openvino' has none of head=float, granularity=tensor"),
        ("channel = 98.5", "channel = 985", "'channel' is 985, not a number of per cent, 0 to 100"),
        ("channel = 98.5", "channel = true", "'channel' is True, not a number of per cent, 0 to 100"),
        ("tflite.float.channel = 98.5", "tflite.float = 98.5", "'float' is 98.5, not a table"),
        ("tflite.float.channel = 98.5", "", "models.toml, small, keeps: no file is named"),
        ("[small.keeps]\ntflite.float.channel = 98.5", "", "models.toml, small lacks 'keeps'"),
        ("small", "all", "models.toml, all: a name has letters, digits, '-', '_' and '.' alone, and is not 'all'"),
        ("[small", '["small model"', "models.toml, small model: a name has letters, "),
        ("[small]", "[small", "models.toml: Expected ']'"),
        ("[small]", "small = 3\n[other]", "models.toml: "),
    ],
)
def test_a_file_is_read_strictly(tmp_path, before, after, said):
    assert before in MINIMAL
    with pytest.raises(ModelsFileError, match=re.escape(said)) as caught:
        read(tmp_path, MINIMAL.replace(before, after))
    assert str(caught.value).startswith("models.toml")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_empty_or_no_text(tmp_path):
    with pytest.raises(ModelsFileError, match=r"models '.*models.toml' not found \(looked in"):
        models.read(tmp_path / "models.toml")
    with pytest.raises(ModelsFileError, match=r"^models.toml names no model$"):
        read(tmp_path, "# nothing\n")
    (tmp_path / "models.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ModelsFileError, match=r"^models.toml: 'utf-8' codec"):
        models.read(tmp_path / "models.toml")


def test_some_are_picked_by_name_in_the_files_order(tmp_path):
    entries = read(tmp_path, MINIMAL + WHOLE)
    assert models.only(entries, []) == entries
    assert models.only(entries, ["large", "small"]) == entries
    assert [entry.name for entry in models.only(entries, ["large"])] == ["large"]
    with pytest.raises(OptionError, match="--only 'larg' is not one of small, large"):
        models.only(entries, ["small", "larg"])


def test_a_missing_file_is_an_error_or_leaves_an_optional_model_out(tmp_path):
    small, large = read(tmp_path, MINIMAL + WHOLE)
    with pytest.raises(ModelsFileError, match=r"^small: '.*weights/small.pt' not found; .*'optional = true'"):
        models.present([small, large])
    small.checkpoint.parent.mkdir()
    small.checkpoint.touch()
    assert models.present([small, large]) == (small,)
    large.checkpoint.touch()
    assert (large.missing, models.present([small, large])) == (large.data, (small,))
    large.data.parent.mkdir()
    large.data.touch()
    assert models.present([small, large]) == (small, large)


def test_the_models_of_this_repository_are_there_or_optional():
    entries = models.read(ROOT / "models.toml")
    models.present(entries)
    assert {entry.name for entry in entries if entry.is_optional} == {"yolov8n", "yolo26n"}
    tasks = {entry.task for entry in entries if entry.data is None}
    assert tasks == {"detect", "segment", "pose", "obb"}
    for entry in entries:
        assert {row.format for row in entry.rows} == {*FORMATS} - {"saved_model"}
        assert {row.head for row in entry.rows} >= {"float", "raw", "int8"}
