"""A SavedModel's folder: one export each of the embedded detector and of a model with rotated boxes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ultralytics import YOLO

from yolo_edgequant.contract import read
from yolo_edgequant.demo.dataset import data_set
from yolo_edgequant.demo.train import WEIGHTS
from yolo_edgequant.options import ExportOptions, Head
from yolo_edgequant.patches import saved_model
from yolo_edgequant.processes import environment
from yolo_edgequant.tflite.graph import Graph
from yolo_edgequant.tflite.packing import check_inside

OBB = Path(__file__).parents[1] / "weights/shapes-obb.pt"
TAGS = ("float32", "float16", "int8", "integer_quant", "full_integer_quant")


def test_only_heads_with_an_angle_have_rotated_boxes():
    assert saved_model._has_rotated_boxes(YOLO(OBB).model)
    assert not saved_model._has_rotated_boxes(YOLO(WEIGHTS).model)
    assert not saved_model._has_rotated_boxes(YOLO("yolov8n-cls.yaml").model)
    assert ExportOptions(head="float").head == Head.FLOAT


OFFLINE = """
import json, pathlib, socket, sys
def refuse(*arguments):
    raise AssertionError(f"network: {arguments}")
socket.socket.connect = socket.getaddrinfo = refuse
import yolo_edgequant, ultralytics
from ultralytics import YOLO
def sources():
    place = pathlib.Path(ultralytics.__file__).parents[1]
    return {p: p.stat().st_mtime_ns for name in ("onnx2tf", "ultralytics") for p in (place / name).rglob("*.py")}
before = sources()
folder = YOLO("shapes.pt").export(format="saved_model", quantize=8, data=sys.argv[1], imgsz=160, split="train")
print(json.dumps([folder, sources() == before]))
"""


@pytest.fixture(scope="module")
def offline(tmp_path_factory, shapes_data):
    """The export with the most tools, in a process that reaches no network: folder, and whether sources stayed."""
    place = tmp_path_factory.mktemp("saved_model")
    shutil.copy(WEIGHTS, place)
    command = [sys.executable, "-c", OFFLINE, str(shapes_data)]
    done = subprocess.run(command, cwd=place, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    folder, same = json.loads(done.stdout.splitlines()[-1])
    return place / folder, same


@pytest.mark.export
def test_nothing_is_fetched_and_site_packages_stays_as_it_is(offline):
    folder, same = offline
    assert same
    assert {p.name for p in folder.parent.iterdir()} == {"shapes.pt", folder.name}, "nothing else is left"


@pytest.mark.export
def test_the_folder_has_upstreams_files_with_their_constants_inside(offline):
    folder, _ = offline
    assert folder.name == "shapes_saved_model"
    assert (folder / "saved_model.pb").is_file()
    assert {p.name for p in folder.glob("*.tflite")} == {f"shapes_{tag}.tflite" for tag in TAGS}
    for tag in TAGS:
        check_inside((folder / f"shapes_{tag}.tflite").read_bytes())
    assert yaml.safe_load((folder / "metadata.yaml").read_text())["task"] == "detect"


@pytest.mark.export
def test_each_file_has_the_types_that_its_name_says(offline):
    folder, _ = offline
    for tag in TAGS:
        file = folder / f"shapes_{tag}.tflite"
        graph, contract = Graph(file.read_bytes()), read(file)
        types = {graph.dtype(tensor) for tensor in (*graph.inputs, *graph.outputs)}
        integer = tag == "full_integer_quant"
        assert types == ({"INT8"} if integer else {"FLOAT32"}), tag
        assert (contract.io, contract.head) == (("int8", "int8") if integer else ("float", "float"))
        assert contract.ranges == ("activation" if tag.endswith("integer_quant") else "none")
        assert (contract.verified is not None) == tag.endswith("integer_quant")


@pytest.mark.export
def test_all_files_detect(offline, score, shapes_data, fp32):
    import litert_torch  # noqa: F401, before TensorFlow, or no later test of this process could convert

    folder, _ = offline
    least = {"float32": 0.999, "float16": 0.98, "int8": 0.95, "integer_quant": 0.97, "full_integer_quant": 0.85}
    for tag, share in least.items():
        assert score(folder / f"shapes_{tag}.tflite", shapes_data) > share * fp32, tag
    assert score(folder, shapes_data) == pytest.approx(fp32, abs=1e-3)


@pytest.mark.export
def test_rotated_boxes_are_integers_in_the_full_integer_file_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(saved_model, "to_saved_model", lambda onnx, folder: folder.mkdir())  # files are looked at
    data = data_set(tmp_path / "data", 16, 4, 96, seed=5, task="obb")
    checkpoint = shutil.copy(OBB, tmp_path)
    folder = Path(YOLO(checkpoint).export(format="saved_model", quantize=8, data=data, split="train", imgsz=96))
    graph = Graph((folder / "shapes-obb_full_integer_quant.tflite").read_bytes())
    kinds = {op.kind for op in graph.operations}
    assert {graph.dtype(tensor) for op in graph.operations for tensor in op.outputs} == {"INT8"}
    assert not kinds & {"COS", "SIN", "DEQUANTIZE"}
    contract = read(folder / "shapes-obb_full_integer_quant.tflite")
    assert contract.unturned
    assert [output.name for output in contract.outputs].count("angle") <= 1
    twin = Graph((folder / "shapes-obb_integer_quant.tflite").read_bytes())
    assert {"COS", "SIN"} <= {op.kind for op in twin.operations}
    assert not read(folder / "shapes-obb_integer_quant.tflite").unturned
    for tag in TAGS:
        check_inside((folder / f"shapes-obb_{tag}.tflite").read_bytes())
