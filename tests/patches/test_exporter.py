import shutil
import threading
from pathlib import Path

import pytest
import torch
from ultralytics import RTDETR, YOLO
from ultralytics.engine.exporter import Exporter

import yolo_edgequant
from yolo_edgequant.errors import DataError, MissingToolError, OptionError, UnsupportedModelError


@pytest.fixture
def left_behind(tmp_path):
    """What an export that was refused has left in its folder."""
    before = set(tmp_path.rglob("*"))
    return lambda: {p.name for p in set(tmp_path.rglob("*")) - before}


def one_line(raised):
    return "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"head": "flaot"}, "head='flaot' is not one of 'int8', 'float', 'raw'"),
        ({"format": "saved_model", "head": "raw"}, "head='raw' is not possible with format='saved_model'"),
        ({"format": "openvino", "head": "int8", "nms": True}, "leave dynamic= and nms=True out"),
        ({"granularity": "layer"}, "granularity='layer'"),
        ({"ranges": "max"}, "ranges='max'"),
        ({"format": "openvino", "granularity": "tensor"}, "not possible with format='openvino'"),
        ({"format": "litert", "io": "int8"}, "io='int8' is not possible with format='litert'"),
        ({"format": "onnx", "head": "float"}, "needs quantize=8 and one of the formats"),
        ({"quantize": None, "head": "float"}, "needs quantize=8"),
        ({"dynamic": True}, "dynamic=True is not possible"),
        ({"batch": 2}, "batch=2 is not possible"),
        ({"format": "saved_model", "nms": True}, "nms=True is not possible"),
    ],
)
def test_impossible_options_are_refused_before_any_work(shapes_model, shapes_data, left_behind, arguments, match):
    with pytest.raises(OptionError, match=match) as raised:
        YOLO(shapes_model).export(**{"format": "tflite", "quantize": 8, "data": shapes_data, "imgsz": 160, **arguments})
    assert one_line(raised)
    assert left_behind() == set()


def test_a_saved_model_cannot_be_nms_free(tmp_path, shapes_data):
    checkpoint = shutil.copy(Path(__file__).parents[1] / "weights/shapes26.pt", tmp_path)
    with pytest.raises(OptionError, match="nms=False is not possible with format='saved_model'") as raised:
        YOLO(checkpoint).export(format="saved_model", quantize=8, data=shapes_data, imgsz=160, nms=False)
    assert one_line(raised)


def test_an_unknown_argument_is_still_upstreams_error(shapes_model, shapes_data):
    with pytest.raises(SyntaxError, match="haed"):
        YOLO(shapes_model).export(format="tflite", quantize=8, data=shapes_data, haed="float")


@pytest.mark.parametrize(
    ("data", "match"),
    [(None, "pass data="), ("nowhere.yaml", "nowhere.yaml"), ("empty", "no calibration images")],
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


def test_models_that_cannot_be_quantised(shapes_model, shapes_data):
    arguments = {"format": "litert", "quantize": 8, "data": str(shapes_data), "imgsz": 64}
    with pytest.raises(UnsupportedModelError, match="RTDETRDecoder"):
        RTDETR("rtdetr-resnet50.yaml").export(**arguments)
    foreign = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3))
    with pytest.raises(UnsupportedModelError, match="not an Ultralytics YOLO model"):
        Exporter(overrides=arguments)(model=foreign)
    trained = YOLO(shapes_model)
    trained.model.model.add_module("quantizer", type("TensorQuantizer", (torch.nn.Module,), {})())
    with pytest.raises(UnsupportedModelError, match="quantisation-aware"):
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


def test_a_checkpoint_trained_quantisation_aware_says_what_it_needs(shapes_model, tmp_path):
    checkpoint = torch.load(shapes_model, weights_only=False)
    torch.save({**checkpoint, "modelopt": {"modelopt": {}, "ranges": {}}}, tmp_path / "qat.pt")
    with pytest.raises(MissingToolError, match=r"trained quantisation-aware .* needs nvidia-modelopt") as raised:
        YOLO(tmp_path / "qat.pt")
    assert one_line(raised)


def test_a_file_that_is_quantised_already_is_refused(shapes_model, shapes_data):
    made = YOLO(shapes_model).export(format="tflite", quantize=8, data=shapes_data, imgsz=160)
    with pytest.raises(TypeError, match="PyTorch"):
        YOLO(made, task="detect").export(format="tflite", quantize=8, data=shapes_data, imgsz=160)


def test_options_reach_the_export_from_the_call_the_context_and_the_thread(monkeypatch, shapes_model, shapes_data):
    from yolo_edgequant.upstream import convert

    seen = {}

    def torch2litert(original, model, im, file, *args, **kwargs):
        seen[threading.current_thread().name] = convert.active().request
        raise RuntimeError("seen")

    def export(**options):
        with pytest.raises(RuntimeError, match="seen"):
            YOLO(shapes_model).export(format="tflite", quantize=8, data=shapes_data, imgsz=160, **options)
        return seen[threading.current_thread().name]

    from ultralytics.utils.export import litert

    monkeypatch.setattr(litert, "torch2litert", lambda *a, **k: torch2litert(None, *a, **k))
    assert export().head == "int8"
    assert export(head="float", granularity="tensor").granularity == "tensor"
    with yolo_edgequant.options(head="float", io="uint8"):
        assert (export().head, export().io) == ("float", "uint8")
        assert export(head="int8").head == "int8"
        threads = [
            threading.Thread(name=head, target=export, kwargs={"head": head, "ranges": ranges})
            for head, ranges in (("int8", "mse"), ("float", "minmax"))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (seen["int8"].head, seen["int8"].ranges, seen["int8"].io) == ("int8", "mse", "int8")
    assert (seen["float"].head, seen["float"].ranges) == ("float", "minmax")
    assert convert.active() is None, "after exports that raised"
    assert export().head == "int8"


def test_int8_true_is_quantize_8(shapes_model, shapes_data):
    with pytest.raises(OptionError, match="io='float' is not possible with format='edgetpu'"):
        YOLO(shapes_model).export(format="edgetpu", int8=True, data=shapes_data, imgsz=160, io="float")


def test_disabled_there_are_no_options(shapes_model):
    yolo_edgequant.disable()
    with pytest.raises(SyntaxError, match="granularity"):
        YOLO(shapes_model).export(format="litert", granularity="tensor")
