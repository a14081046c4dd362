"""What an export leaves open is chosen, and its result is checked before a file is written."""

import json
import zipfile
from pathlib import Path

import pytest
from ultralytics import YOLO

from yolo_edgequant import pipeline
from yolo_edgequant.errors import VerificationError
from yolo_edgequant.quantization import sensitivity
from yolo_edgequant.tflite.graph import Graph
from yolo_edgequant.upstream import precision


def export(model, data, **options):
    return YOLO(model).export(format="tflite", quantize=8, data=data, split="train", imgsz=160, **options)


def contract(path):
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("metadata.json"))["edgequant"]


@pytest.fixture
def broken(monkeypatch):
    """Ranges that leave nothing of the scores; the names of their layers' outputs."""
    ranges = pipeline.Calibrated.ranges
    named = []

    def wrong(self, estimator, in_float=()):
        graph, chosen = self.graph, ranges(self, estimator, in_float)
        ends = [op.outputs[0] for op in graph.operations if graph.is_layer(op) and graph.silu(op.outputs[0]) is None]
        victims = [t for t in ends if graph.shape(t)[-1] == 4]
        named.extend(graph.name(t) for t in victims)
        return {**chosen, **dict.fromkeys(victims, (-5000.0, 5000.0))}

    monkeypatch.setattr(pipeline.Calibrated, "ranges", wrong)
    return named


def test_a_collapse_is_an_error_that_names_the_tensor_and_no_file(shapes_model, shapes_data, broken):
    with pytest.raises(VerificationError) as raised:
        export(shapes_model, shapes_data, head="raw")
    assert any(f"'{name}'" in str(raised.value) for name in broken)
    assert not list(shapes_model.parent.glob("*.tflite"))


def test_without_the_check_the_file_is_written(shapes_model, shapes_data, broken):
    assert "verified" not in contract(export(shapes_model, shapes_data, head="raw", verify=False))


def test_ranges_are_chosen_by_agreement_and_what_was_seen_is_noted(shapes_model, shapes_data, caplog):
    made = contract(export(shapes_model, shapes_data, head="raw", ranges="auto"))
    assert made["ranges"] in {"activation", "mse", "percentile", "minmax"}
    assert f"ranges='{made['ranges']}'" in next(line for line in caplog.text.splitlines() if "(chosen)" in line)
    assert made["verified"]["images"] == 3
    assert made["verified"]["agreement"] > 0.8
    assert made["corrections"] == "all"


def float_convolutions(file):
    graph = Graph(file.read_bytes())
    return [op for op in graph.operations if op.kind == "CONV_2D" and graph.dtype(op.outputs[0]) == "FLOAT32"]


@pytest.mark.slow
def test_mixed_precision_keeps_what_it_needs_and_reports_what_it_tried(shapes_model, shapes_data, monkeypatch):
    layers = sensitivity.layers
    monkeypatch.setattr(sensitivity, "layers", lambda graph: dict(list(layers(graph).items())[-8:]))  # a second each
    monkeypatch.setattr(precision, "_accuracy", lambda file, *_: 0.8 if len(float_convolutions(file)) >= 3 else 0.6)
    path = export(shapes_model, shapes_data, head="raw", granularity="tensor", precision="auto", min_retention=0.9)
    assert contract(path)["precision"] == {"in_float": 3, "retention": 1}
    assert len(float_convolutions(Path(path))) == 3
    said = json.loads((shapes_model.parent / "shapes_sensitivity.json").read_text())
    assert len(said["layers"]) == 8
    assert [trial["in_float"] for trial in said["trials"]] == [0, 1, 2, 3, 4, 8]
    assert said["trials"][0]["retention"] == pytest.approx(0.75)
    assert (shapes_model.parent / "shapes_sensitivity.png").stat().st_size > 10_000


@pytest.mark.slow
def test_openvino_measures_on_the_calibration_images(shapes_model, shapes_data, caplog):
    options = {"quantize": 8, "data": shapes_data, "split": "train", "imgsz": 160, "min_retention": 0.9}
    folder = Path(YOLO(shapes_model).export(format="openvino", precision="auto", **options))
    made = json.loads((folder / "metadata.json").read_text())["edgequant"]["precision"]
    assert made["in_float"] == 0
    assert made["retention"] > 0.95
    assert f"0 layers in float: retention {made['retention']:.1%}" in caplog.text
    said = json.loads((folder / "sensitivity.json").read_text())
    assert len(said["layers"]) > 50
    assert (folder / "sensitivity.png").stat().st_size > 10_000
