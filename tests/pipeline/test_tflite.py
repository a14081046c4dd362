"""A collapse through real files, and what ``precision="auto"`` leaves in them."""

import json
from dataclasses import replace

import numpy as np
import pytest

from yolo_edgequant import contract
from yolo_edgequant.contract import Contract
from yolo_edgequant.errors import VerificationError
from yolo_edgequant.pipeline import tflite
from yolo_edgequant.pipeline.tflite import TFLiteBuild
from yolo_edgequant.tflite import candidate_cells, interpreter, score_alignment
from yolo_edgequant.tflite.calibrated import CalibratedGraph, calibrate
from yolo_edgequant.tflite.graph import Graph
from yolo_edgequant.tflite.weights import WeightEditor
from yolo_edgequant.upstream import validation

from .fakes import CONTRACT, request

pytestmark = pytest.mark.export


@pytest.fixture
def broken(monkeypatch):
    """Ranges that leave nothing of the scores; the names of their layers' outputs."""
    ranges = CalibratedGraph.ranges
    named = []

    def wrong(self, in_float=()):
        graph, wide = self.graph, ranges(self, in_float)
        ends = [op.outputs[0] for op in graph.operations if graph.is_layer(op) and graph.silu(op.outputs[0]) is None]
        victims = [t for t in ends if graph.shape(t)[-1] == 4]
        named.extend(graph.name(t) for t in victims)
        return {**wide, **dict.fromkeys(victims, (-5000.0, 5000.0))}

    monkeypatch.setattr(CalibratedGraph, "ranges", wrong)
    return named


def test_a_collapse_is_an_error_that_names_the_tensor_and_no_file(export, shapes_model, shapes_data, broken):
    with pytest.raises(VerificationError) as raised:
        export(shapes_model, shapes_data, format="tflite", head="raw")
    assert any(f"'{name}'" in str(raised.value) for name in broken)
    assert not list(shapes_model.parent.glob("*.tflite"))


def test_without_the_check_the_file_is_written(export, shapes_model, shapes_data, broken):
    assert contract.read(export(shapes_model, shapes_data, format="tflite", head="raw", verify=False)).verified is None


def test_what_the_check_saw_is_in_the_file(export, shapes_model, shapes_data):
    said = contract.read(export(shapes_model, shapes_data, format="tflite", head="raw"))
    assert (said.ranges, said.corrections) == ("activation", "all")
    assert said.verified.images == 3
    assert said.verified.agreement > 0.8


def float_convolutions(file):
    graph = Graph(file.read_bytes())
    return [op for op in graph.operations if op.kind == "CONV_2D" and graph.dtype(op.outputs[0]) == "FLOAT32"]


def test_mixed_precision_keeps_what_it_needs_and_reports_what_it_tried(export, shapes_model, shapes_data, monkeypatch):
    layers = TFLiteBuild.layers.fget
    monkeypatch.setattr(TFLiteBuild, "layers", property(lambda self: layers(self)[-8:]))  # a second each
    monkeypatch.setattr(
        validation, "accuracy", lambda file, *_, **__: 0.8 if len(float_convolutions(file)) >= 3 else 0.6
    )
    path = export(
        shapes_model,
        shapes_data,
        format="tflite",
        head="raw",
        granularity="tensor",
        precision="auto",
        min_retention=0.9,
    )
    kept = contract.read(path).in_float
    assert (kept.layers, kept.retention) == (3, 1)
    assert len(float_convolutions(path)) == 3
    said = json.loads((shapes_model.parent / "shapes_sensitivity.json").read_text())
    assert len(said["layers"]) == 8
    assert [trial["in_float"] for trial in said["trials"]] == [0, 1, 2, 3, 4, 8]
    assert said["trials"][0]["retention"] == pytest.approx(0.75)
    assert (shapes_model.parent / "shapes_sensitivity.png").stat().st_size > 10_000


@pytest.fixture
def shifted(graph, images):
    """Builds of the committed detector by what they correct; its middle level's scores are a logit low when rounded."""
    cells = candidate_cells.of_decoded(graph, [400, 100, 25], 4)
    layers = score_alignment.score_layers(graph, cells)
    calibrated = calibrate(graph, iter(images), (), cells, compared=[op.outputs[0] for op in layers])
    middle = layers[1]
    quantize = CalibratedGraph.quantize

    def lower(self, *args, **kwargs):
        editor = WeightEditor(self.graph)
        bias = self.graph.constant(middle.inputs[2])
        editor.replace(middle, 2, bias - np.float32(1))
        return quantize(replace(self, graph=Graph(editor.content())), *args, **kwargs)

    def build(corrections, calibration=images):
        facts = {"head": "int8", "io": "float", "corrections": corrections, "strides": (8, 16, 32)}
        contract = Contract(**{**vars(CONTRACT), **facts, "names": dict(enumerate("abcd"))})
        return TFLiteBuild(calibrated, contract, {}, [], (160, 160), calibration)

    return build, lower


@pytest.mark.parametrize("corrections", ["all", "scores"])
def test_scores_are_aligned(shifted, monkeypatch, graph, images, corrections):
    build, lower = shifted
    monkeypatch.setattr(CalibratedGraph, "quantize", lower)
    low = build(corrections).quantize()
    aligned = build(corrections).corrected(low)
    scores = [interpreter.run(content, images) for content in (graph.content, low, aligned)]
    exact, before, after = (
        np.concatenate([run.tensors[0].values(outputs[0])[:, 4:, 400:500] for outputs in run.outputs]) for run in scores
    )
    sure = exact.max(1) > 0.5
    assert np.median(before.max(1)[sure] - exact.max(1)[sure]) < -0.05
    assert abs(np.median(after.max(1)[sure] - exact.max(1)[sure])) < 0.02


@pytest.mark.parametrize(("corrections", "calibration"), [("bias", True), ("none", True), ("all", False)])
def test_scores_stay_where_that_was_not_asked_for_or_nothing_was_calibrated(
    shifted, monkeypatch, images, corrections, calibration
):
    build, lower = shifted
    monkeypatch.setattr(CalibratedGraph, "quantize", lower)
    model = build(corrections, images if calibration else ())
    low = model.quantize()
    assert model.corrected(low) is low


@pytest.mark.parametrize(
    ("corrections", "granularity", "together"),
    [
        ("all", "tensor", True),
        ("all", "channel", False),
        ("rounding", "channel", True),
        ("rounding", "tensor", True),
        ("bias", "tensor", False),
        ("none", "tensor", False),
    ],
)
def test_weights_are_rounded_together_where_steps_are_coarse_or_on_request(
    graph, images, corrections, granularity, together
):
    contract = Contract(**{**vars(CONTRACT), "task": "classify", "corrections": corrections})
    wanted = request(head="int8", corrections=corrections, granularity=granularity)
    calibrated = tflite.calibrate(graph, contract, wanted, images[:1])
    assert any(statistics.moments for statistics in calibrated.statistics.values()) == together
