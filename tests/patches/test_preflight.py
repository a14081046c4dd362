"""What is refused before any work."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ultralytics import RTDETR, YOLO
from ultralytics.engine.exporter import Exporter

import yolo_edgequant
from yolo_edgequant.errors import DataError, OptionError, UnsupportedModelError
from yolo_edgequant.options import ExportOptions, options
from yolo_edgequant.patches import preflight
from yolo_edgequant.targets.formats import PROFILES, resolve
from yolo_edgequant.training.fake_quantization import FakeQuantization, attach

WEIGHTS = Path(__file__).parents[1] / "weights"


@pytest.fixture
def left_behind(tmp_path):
    """What an export that was refused has left in its folder."""
    before = set(tmp_path.rglob("*"))
    return lambda: {p.name for p in set(tmp_path.rglob("*")) - before}


def one_line(raised):
    return "\n" not in str(raised.value)


def exporter(**arguments):
    return SimpleNamespace(args=SimpleNamespace(**arguments))


def test_a_request_is_for_our_formats_in_8_bits():
    of_ours = exporter(format="TFLite", quantize=8)
    assert preflight.request_of(of_ours) == resolve(PROFILES["tflite"], ExportOptions())
    for name, quantize in (("tflite", None), ("tflite", 16), ("litert", 32), ("onnx", 8), ("openvino", None)):
        assert preflight.request_of(exporter(format=name, quantize=quantize)) is None, (name, quantize)


def test_edgetpu_is_in_8_bits_unless_asked_for_something_else():
    unasked = exporter(format="edgetpu", quantize=None)
    assert preflight.request_of(unasked).profile.format == "edgetpu"
    assert unasked.args.quantize == 8
    assert preflight.request_of(exporter(format="edgetpu", quantize=16)) is None


def test_a_request_has_the_options_that_are_in_force():
    with options(head="raw", granularity="tensor"):
        request = preflight.request_of(exporter(format="tflite", quantize=8))
    assert (request.head, request.granularity, request.io) == ("raw", "tensor", "int8")


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"head": "flaot"}, "head='flaot' is not one of 'int8', 'float', 'raw'"),
        ({"format": "saved_model", "head": "raw"}, "head='raw' is not possible with format='saved_model'"),
        ({"format": "openvino", "head": "int8", "nms": True}, "leave dynamic= and nms=True out"),
        ({"format": "openvino", "head": "raw", "dynamic": True}, "leave dynamic= and nms=True out"),
        ({"granularity": "layer"}, "granularity='layer'"),
        ({"ranges": "max"}, "ranges='max'"),
        ({"ranges": "percentile"}, "ranges='percentile' is not one of 'activation', 'minmax'"),
        ({"format": "openvino", "granularity": "tensor"}, "not possible with format='openvino'"),
        ({"format": "litert", "io": "int8"}, "io='int8' is not possible with format='litert'"),
        ({"format": "edgetpu", "io": "float"}, "io='float' is not possible with format='edgetpu'"),
        ({"format": "onnx", "head": "float"}, "needs quantize=8 and one of the formats"),
        ({"quantize": None, "head": "float"}, "needs quantize=8"),
        ({"dynamic": True}, "dynamic=True is not possible"),
        ({"batch": 2}, "batch=2 is not possible"),
        ({"format": "saved_model", "nms": True}, "nms=True is not possible"),
        ({"min_retention": 0.9}, "min_retention=0.9 needs precision='auto'"),
    ],
)
def test_impossible_options_are_refused_before_any_work(shapes_model, shapes_data, left_behind, arguments, match):
    with pytest.raises(OptionError, match=match) as raised:
        YOLO(shapes_model).export(**{"format": "tflite", "quantize": 8, "data": shapes_data, "imgsz": 160, **arguments})
    assert one_line(raised)
    assert left_behind() == set()


def test_int8_true_is_quantize_8(shapes_model, shapes_data):
    with pytest.raises(OptionError, match="io='float' is not possible with format='edgetpu'"):
        YOLO(shapes_model).export(format="edgetpu", int8=True, data=shapes_data, imgsz=160, io="float")


def test_a_saved_model_cannot_be_nms_free(tmp_path, shapes_data):
    checkpoint = shutil.copy(WEIGHTS / "shapes26.pt", tmp_path)
    with pytest.raises(OptionError, match="nms=False is not possible with format='saved_model'") as raised:
        YOLO(checkpoint).export(format="saved_model", quantize=8, data=shapes_data, imgsz=160, nms=False)
    assert one_line(raised)


@pytest.mark.parametrize(
    ("data", "match"),
    [(None, "pass data="), ("nowhere.yaml", "nowhere.yaml"), ("empty", "no images")],
)
@pytest.mark.parametrize("format", ["tflite", "litert", "openvino", "saved_model"])
def test_missing_calibration_data(shapes_model, tmp_path, left_behind, format, data, match):
    if data == "empty":
        data = tmp_path / "data.yaml"
        data.write_text(
            f"path: {tmp_path / 'gone'}\ntrain: images\nval: images\ndownload: https://localhost/x.zip\nnc: 1\n"
        )
    before = left_behind()
    with pytest.raises(DataError, match=match) as raised:
        YOLO(shapes_model).export(format=format, quantize=8, data=data, imgsz=160)
    assert one_line(raised)
    assert left_behind() == before


def test_models_that_cannot_be_quantized(shapes_model, shapes_data):
    arguments = {"format": "litert", "quantize": 8, "data": str(shapes_data), "imgsz": 64}
    with pytest.raises(UnsupportedModelError, match="RTDETRDecoder"):
        RTDETR("rtdetr-resnet50.yaml").export(**arguments)
    foreign = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3))
    with pytest.raises(UnsupportedModelError, match="not an Ultralytics YOLO model"):
        Exporter(overrides=arguments)(model=foreign)
    trained = YOLO(shapes_model)
    trained.model.model.add_module("quantizer", type("TensorQuantizer", (torch.nn.Module,), {})())
    with pytest.raises(UnsupportedModelError, match="trained quantization-aware and carries its own ranges"):
        trained.export(**arguments)
    with pytest.raises(OptionError, match="classify"):
        YOLO("yolov8n-cls.yaml").export(**arguments, head="float")


@pytest.mark.parametrize(("format", "head"), [("tflite", "int8"), ("tflite", "raw"), ("litert", "raw")])
def test_leaky_relu_cannot_be_in_integers(shapes_model, shapes_data, format, head, left_behind):
    model = YOLO(shapes_model)
    yolo_edgequant.swap_activation(model, "leaky_relu")
    with pytest.raises(UnsupportedModelError, match="leaves the 57 LeakyReLU of this model in float") as raised:
        model.export(format=format, quantize=8, data=shapes_data, imgsz=160, head=head)
    assert one_line(raised)
    assert left_behind() == set()


@pytest.mark.parametrize(("format", "head"), [("tflite", "float"), ("openvino", "int8")])
def test_leaky_relu_may_be_in_float_or_in_nncfs_hands(shapes_model, format, head):
    model = YOLO(shapes_model)
    yolo_edgequant.swap_activation(model, "leaky_relu")
    preflight.check_integers(resolve(PROFILES[format], ExportOptions(head=head)), model.model)


@pytest.mark.parametrize(
    ("option", "value"), [("ranges", "minmax"), ("corrections", "none"), ("precision", "auto"), ("min_retention", 0.9)]
)
def test_a_trained_model_leaves_no_choice_of_ranges_and_needs_no_images(shapes_model, option, value):
    model = YOLO(shapes_model).model
    attach(model, FakeQuantization({0: (0.0, 6.0)}, (), {0}, "tensor", "tflite"))
    arguments = SimpleNamespace(dynamic=False, batch=1, nms=None, data=None, split=None)
    request = resolve(PROFILES["tflite"], ExportOptions())
    assert preflight.check(arguments, model, request) is model.model[-1]
    with (
        options(**{option: value}),
        pytest.raises(OptionError, match=f"{option}={value!r} is not for a model that was trained quantization-aware"),
    ):
        preflight.check(arguments, model, request)


def test_a_trained_models_granularity_is_the_files():
    request = resolve(PROFILES["tflite"], ExportOptions())
    assert preflight.as_trained(request, "tensor").granularity == "tensor"
    with options(granularity="tensor"):
        assert preflight.as_trained(request, "tensor").granularity == "tensor"
    with (
        options(granularity="channel"),
        pytest.raises(OptionError, match="granularity='channel' but the model was trained with 'tensor'"),
    ):
        preflight.as_trained(request, "tensor")
    openvino = resolve(PROFILES["openvino"], ExportOptions())
    assert preflight.as_trained(openvino, "tensor") == openvino, "a format that has channels alone keeps them"
