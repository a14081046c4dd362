"""OpenVINO models by the export call."""

from collections import Counter
from pathlib import Path

import pytest
from torch import nn
from ultralytics import YOLO

import yolo_edgequant
from yolo_edgequant.contract import read
from yolo_edgequant.demo.train import WEIGHTS
from yolo_edgequant.errors import OutputError
from yolo_edgequant.patches import calibration

pytestmark = pytest.mark.export


@pytest.mark.parametrize(
    ("options", "least"), [({}, 0.97), ({"head": "raw"}, 0.97), ({"head": "int8"}, 0.85)], ids=["float", "raw", "int8"]
)
def test_exported_models_detect_and_say_what_they_hold(exported, score, shapes_data, fp32, options, least):
    folder = exported("openvino", **options)
    assert folder.name == "shapes_int8_openvino_model"
    assert {p.name for p in folder.parent.iterdir()} == {"shapes.pt", folder.name}, "nothing else is left"
    assert {p.name for p in folder.iterdir()} == {"shapes.xml", "shapes.bin", "metadata.yaml", "metadata.json"}
    assert score(folder, shapes_data) > least * fp32
    contract = read(folder)
    assert contract.head == options.get("head", "float")
    assert (contract.ranges, contract.corrections) == ("activation", "all")
    assert not contract.channels_last
    assert not contract.normalised
    assert (contract.raw is not None) == (contract.head == "raw")
    assert contract.names == {0: "circle", 1: "square", 2: "triangle", 3: "star"}
    assert contract.version == yolo_edgequant.__version__
    assert contract.verified.images == 3


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"head": "raw"}, [f"{name}_{stride}" for name in ("boxes", "scores") for stride in (8, 16, 32)]),
        ({}, ["detections"]),
    ],
    ids=["raw", "float"],
)
def test_outputs_have_the_names_of_the_contract(exported, options, names):
    import openvino as ov

    folder = exported("openvino", **options)
    model = ov.Core().read_model(next(folder.glob("*.xml")))
    assert [port.get_any_name() for port in model.outputs] == names
    assert [output.title for output in read(folder).outputs] == names


def test_box_decoding_stays_in_fp32_on_every_cpu(exported):
    """With bfloat16, OpenVINO leaves in FP32 what lies behind the last convolution."""
    import openvino as ov

    model = ov.Core().read_model(next(exported("openvino").glob("*.xml")))
    kinds = Counter(node.get_type_name() for node in model.get_ops())
    assert kinds["Softmax"] == 1
    layers = [name for name, m in YOLO(WEIGHTS).model.named_modules() if isinstance(m, nn.Conv2d)]
    assert kinds["Convolution"] == len(layers) - 1, "none for the expectation of DFL"


def test_an_export_can_be_repeated_and_runs_each_image_once(exported, export, shapes_model, shapes_data, monkeypatch):
    taken = []
    iterate = calibration.Batches.__iter__

    def counting(self):
        for images in iterate(self):
            taken.append(1)
            yield images

    monkeypatch.setattr(calibration.Batches, "__iter__", counting)
    again = export(shapes_model, shapes_data, format="openvino")
    assert len(taken) == 24
    for file in ("shapes.bin", "shapes.xml"):
        one, other = ((folder / file).read_bytes() for folder in (exported("openvino"), again))
        assert one == other


@pytest.mark.parametrize("ranges", ["activation", "nncf"])
@pytest.mark.parametrize(("target", "name"), [("intel-npu", "NPU"), ("intel-gpu", "GPU"), (None, "ANY")])
def test_nncf_is_told_the_device(export, shapes_model, shapes_data, monkeypatch, ranges, target, name):
    import nncf

    given = []

    def quantize(*_, **arguments):
        given.append(arguments["target_device"])
        raise RuntimeError("far enough")

    monkeypatch.setattr(nncf, "quantize", quantize)
    with pytest.raises(RuntimeError, match="far enough"):
        export(shapes_model, shapes_data, format="openvino", ranges=ranges, target=target)
    assert given == [nncf.TargetDevice[name]]


def test_ranges_and_corrections_can_be_left_to_nncf_or_out(exported, export, shapes_model, shapes_data, monkeypatch):
    from yolo_edgequant.pipeline import openvino as pipeline

    corrected = []
    monkeypatch.setattr(pipeline, "correct_biases", lambda *arguments: corrected.append(arguments))
    folder = export(shapes_model, shapes_data, format="openvino", ranges="nncf")
    assert (read(folder).ranges, read(folder).corrections) == ("nncf", "all")
    assert not corrected
    of_nncf = (folder / "shapes.bin").read_bytes()
    plain = export(shapes_model, shapes_data, format="openvino", corrections="none")
    assert (read(plain).ranges, read(plain).corrections) == ("activation", "none")
    assert not corrected
    assert len({of_nncf, (plain / "shapes.bin").read_bytes(), (exported("openvino") / "shapes.bin").read_bytes()}) == 3


def test_an_export_that_fails_leaves_no_half_folder_and_keeps_the_old_one(
    export, shapes_model, shapes_data, monkeypatch
):
    import openvino as ov

    old = shapes_model.with_name("shapes_int8_openvino_model")
    old.mkdir()
    (old / "shapes.xml").write_text("the old one")

    def full(model, file, **kwargs):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ov, "save_model", full)
    with pytest.raises(OutputError, match="No space left on device"):
        export(shapes_model, shapes_data, format="openvino")
    assert (old / "shapes.xml").read_text() == "the old one"
    assert {p.name for p in shapes_model.parent.iterdir()} == {"shapes.pt", old.name}


def test_a_model_of_any_shape_is_not_verified_and_detects_at_another_size(
    export, shapes_model, shapes_data, score, fp32
):
    folder = export(shapes_model, shapes_data, format="openvino", dynamic=True)
    assert read(folder).verified is None
    assert score(folder, shapes_data) > 0.97 * fp32
    image = min((shapes_data.parent / "images/val").glob("*.png"))
    expected = YOLO(WEIGHTS)(image, imgsz=192, verbose=False)[0].boxes
    boxes = YOLO(folder, task="detect")(image, imgsz=192, verbose=False)[0].boxes
    assert sorted(boxes.cls.tolist()) == sorted(expected.cls.tolist()) != []
