import copy
import logging

import pytest
import torch
from ultralytics import YOLO

import yolo_edgequant
from yolo_edgequant.demo.train import WEIGHTS
from yolo_edgequant.errors import OptionError, UnsupportedModelError
from yolo_edgequant.log import LOGGER
from yolo_edgequant.options import ExportOptions
from yolo_edgequant.patches import litert
from yolo_edgequant.patches.device_check import Finding, Severity, enforce, examine, family
from yolo_edgequant.targets.devices import Source, device
from yolo_edgequant.training.fake_quantization import FakeQuantization, attach


@pytest.fixture(scope="module")
def models():
    """Models by their YAML, untrained."""
    built = {}

    def build(name):
        if name not in built:
            built[name] = YOLO(name).model
        return built[name]

    return build


def found(model, target, size=320, given=None, **settings):
    """What is found, each as severity and what it is about; notes left out."""
    findings = examine(model, device(target), (size, size), ExportOptions(**(given or {})), **settings)
    return [(one.severity, one.about) for one in findings if one.severity != Severity.NOTE], findings


@pytest.mark.parametrize("name", ["coral-edgetpu", "frigate-edgetpu", "nxp-imx8mp", "nxp-imx93", "nxp-imx95"])
def test_nothing_is_said_against_a_yolov8n_of_a_fitting_size(models, name):
    assert found(models("yolov8n.yaml"), name)[0] == []


@pytest.mark.parametrize("name", ["intel-cpu", "intel-gpu", "intel-npu", "raspberrypi", "arm-cpu", "axis-artpec"])
def test_where_nothing_is_known_nothing_is_said(models, name):
    assert found(models("yolo26n.yaml"), name, 640) == ([], [])


@pytest.mark.parametrize(
    ("model", "name", "severity", "words"),
    [
        ("yolo11s.yaml", "nxp-imx8mp", "refuse", "0.4587 to 0.0213"),
        ("yolo26s.yaml", "nxp-imx8mp", "refuse", "the delegate crashes"),
        ("yolo26n.yaml", "nxp-imx8mp", "warn", "353.9 ms"),
        ("yolo11n.yaml", "nxp-imx95", "refuse", "wrongly compiled"),
        ("yolo26n.yaml", "nxp-imx95", "refuse", "wrongly compiled"),
        ("yolo11n.yaml", "coral-edgetpu", "warn", "on no Edge TPU list"),
        ("yolo26n.yaml", "coral-edgetpu", "warn", "on no Edge TPU list"),
    ],
)
def test_models_that_were_published_to_fail_or_to_be_slow(models, model, name, severity, words):
    worst = found(models(model), name)[1][0]
    assert (worst.severity, worst.about) == (severity, "model")
    assert words in worst.text
    assert worst.text.count("there:") == 1
    assert "take YOLOv8 instead" in worst.text
    assert ("export without target=" in worst.text) == (severity == "refuse")
    assert worst.source.date != ""


@pytest.mark.parametrize("model", ["yolo11n.yaml", "yolo26n.yaml"])
def test_smaller_ones_of_a_family_are_not_taken_for_the_one_that_fails(models, model):
    assert ("refuse", "model") not in found(models(model), "nxp-imx8mp")[0]


def test_attention_is_named_with_the_family_to_take_instead(models):
    said, findings = found(models("yolo12n.yaml"), "coral-edgetpu")
    assert said == [("warn", "attention")]
    assert findings[0].text == (
        "the attention of yolo12 needs BATCH_MATMUL, which stays on the CPU there; take YOLOv8 instead"
    )
    assert found(models("yolo12n.yaml"), "nxp-imx8mp")[0] == [], "the VX delegate lists it"
    assert found(models("yolo11n.yaml"), "nxp-imx93")[0] == [("warn", "attention")]
    assert found(models("yolo11n.yaml"), "coral-edgetpu")[0] == [("warn", "model")], "said once"


@pytest.mark.parametrize(
    ("activation", "name", "expected", "words"),
    [
        ("relu6", "coral-edgetpu", [], ""),
        ("hardswish", "coral-edgetpu", [("refuse", "activation")], "wrong results"),
        ("hardswish", "frigate-edgetpu", [("refuse", "activation")], "wrong results"),
        ("hardswish", "nxp-imx8mp", [], ""),
        ("leaky_relu", "nxp-imx8mp", [("refuse", "activation")], "ai-edge-quantizer leaves the 57 LeakyReLU"),
        ("leaky_relu", "coral-edgetpu", [("refuse", "activation"), ("warn", "activation")], "57 LeakyReLU"),
        ("leaky_relu", "intel-npu", [], ""),
    ],
)
def test_activations(models, activation, name, expected, words):
    model = copy.deepcopy(models("yolov8n.yaml"))
    yolo_edgequant.swap_activation(model, activation)
    said, findings = found(model, name)
    assert said == expected
    if expected:
        assert words in findings[0].text
        assert "yolo_edgequant.finetune(model, activation='relu6'" in findings[0].text


def test_an_activation_that_no_profile_names_is_a_warning(models):
    model = copy.deepcopy(models("yolov8n.yaml"))
    model.model[0].act = torch.nn.Mish()
    said, findings = found(model, "nxp-imx93")
    assert said == [("warn", "activation")]
    assert findings[0].text.startswith("nothing is known there of the activation mish (1 times)")


def test_sizes_over_what_is_known_to_fit(models):
    said, findings = found(models("yolov8n.yaml"), "coral-edgetpu", 640)
    assert said == [("warn", "size")]
    assert findings[0].text.startswith("an input of 640 x 640 is over the 320 pixels that are known to run wholly")
    assert findings[0].text.endswith("; take imgsz=320")
    oblong = examine(models("yolov8n.yaml"), device("coral-edgetpu"), (192, 352), ExportOptions())
    assert [one.about for one in oblong if one.severity == "warn"] == ["size"]
    assert found(models("yolov8n.yaml"), "nxp-imx93", 640)[0] == [], "Vela compiles 640"


def test_more_weights_than_the_accelerator_holds(models):
    said, findings = found(models("yolov8s.yaml"), "coral-edgetpu")
    assert said == [("warn", "memory")]
    assert "11.2 MB of weights are over the 8.0 MB for parameters" in findings[0].text
    assert found(models("yolov8s.yaml"), "nxp-imx8mp")[0] == []


def test_a_task_that_the_program_there_cannot_run(models):
    said, findings = found(models("yolov8n-seg.yaml"), "frigate-edgetpu")
    assert said == [("refuse", "task")]
    assert findings[0].text == "task 'segment' cannot be run there, only 'detect'; take another target"
    assert found(models("yolov8n-seg.yaml"), "coral-edgetpu")[0] == []


def test_dynamic_shapes(models):
    assert found(models("yolov8n.yaml"), "nxp-imx8mp", dynamic=True)[0] == [("refuse", "dynamic")]
    assert found(models("yolov8n.yaml"), "intel-cpu", dynamic=True)[0] == []
    assert found(models("yolov8n.yaml"), "arm-cpu", dynamic=True, name="openvino")[0] == []


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("coral-edgetpu", {"head": "float"}, "head='float' leaves work to the CPU there: the 34 float operators"),
        ("coral-edgetpu", {"head": "int8"}, "head='int8' leaves work to the CPU there: the SOFTMAX"),
        ("frigate-edgetpu", {"outputs": "levels"}, "outputs='levels' does not work there: 'Invalid count of output"),
        ("nxp-imx95", {"granularity": "channel"}, "granularity='channel' may not work there"),
        ("axis-artpec", {"granularity": "channel"}, "granularity='channel' is slow there"),
        ("coral-edgetpu", {"head": "raw"}, ""),
    ],
)
def test_options_that_the_profile_advises_against_are_one_warning(models, name, given, words):
    said, findings = found(models("yolov8n.yaml"), name, given=given)
    assert said == ([("warn", "option")] if words else [])
    if words:
        assert findings[0].text.startswith(words)


def test_an_nms_free_file_that_ends_in_a_choice(models):
    model = models("yolo26n.yaml")
    assert ("warn", "nms") in found(model, "coral-edgetpu", given={"head": "float"}, nms_free=True)[0]
    assert ("warn", "nms") not in found(model, "coral-edgetpu", nms_free=True)[0]
    assert ("warn", "nms") not in found(
        models("yolov8n.yaml"), "coral-edgetpu", given={"head": "float"}, nms_free=True
    )[0]


def test_the_worst_comes_first_and_notes_last(models):
    findings = found(models("yolo11s.yaml"), "nxp-imx93", given={"head": "float"}, dynamic=True)[1]
    order = [one.severity for one in findings]
    assert order == sorted(order, key=list(Severity).index)
    assert order[0] == "refuse"


def test_a_format_or_option_that_cannot_be_is_refused(models):
    with pytest.raises(OptionError, match="format='openvino' is not for target='nxp-imx93'"):
        found(models("yolov8n.yaml"), "nxp-imx93", name="openvino")
    with pytest.raises(UnsupportedModelError, match="not an Ultralytics YOLO model"):
        found(torch.nn.Sequential(), "nxp-imx93")


def test_findings_are_logged_and_a_refusal_stops(monkeypatch):
    lines = []
    monkeypatch.setattr(LOGGER, "warning", lambda text: lines.append((logging.WARNING, text)))
    monkeypatch.setattr(LOGGER, "info", lambda text: lines.append((logging.INFO, text)))
    source = Source("example.org", "2026-01")
    warn, note = Finding(Severity.WARN, "size", "too large", source), Finding(Severity.NOTE, "model", "fits", None)
    enforce([warn, note], device("nxp-imx93"))
    assert lines == [
        (logging.WARNING, "target='nxp-imx93': too large [example.org, 2026-01]"),
        (logging.INFO, "target='nxp-imx93': fits"),
    ]
    with pytest.raises(UnsupportedModelError) as caught:
        enforce([Finding(Severity.REFUSE, "task", "no", source)], device("nxp-imx93"))
    assert str(caught.value) == "target='nxp-imx93': no [example.org, 2026-01]"


@pytest.mark.parametrize(
    ("yaml", "expected"),
    [
        ({"yaml_file": "yolo11s-seg.yaml", "scale": "s"}, ("yolo11", "s")),
        ({"yaml_file": "/somewhere/yolov8n.yaml", "scale": "n"}, ("yolov8", "n")),
        ({"yaml_file": "shapes.yaml", "scale": ""}, ("", "")),
        ({}, ("", "")),
        (None, ("", "")),
    ],
)
def test_the_family_is_as_the_yaml_says(yaml, expected):
    model = torch.nn.Module()
    model.yaml = yaml
    assert family(model) == expected


def test_an_export_is_refused_before_any_work(tmp_path, shapes_data, shapes_model):
    model = YOLO("yolo11s.yaml")
    with pytest.raises(UnsupportedModelError, match="target='nxp-imx8mp': yolo11s goes wrong there"):
        model.export(target="nxp-imx8mp", data=shapes_data, imgsz=64)
    with pytest.raises(OptionError, match="format='openvino' is not for target='nxp-imx8mp'"):
        YOLO(shapes_model).export(format="openvino", target="nxp-imx8mp", data=shapes_data, imgsz=64)
    with pytest.raises(OptionError, match="target='coral' is not one of 'coral-edgetpu'"):
        YOLO(shapes_model).export(target="coral", data=shapes_data, imgsz=64)


@pytest.fixture
def warned(monkeypatch):
    """Warnings of a target, of an export that ends before its work."""
    lines = []
    monkeypatch.setattr(LOGGER, "warning", lambda text, *_: lines.append(str(text)) if "target=" in str(text) else None)
    monkeypatch.setattr(litert, "build_of", lambda self, *_: (_ for _ in ()).throw(RuntimeError("far enough")))
    return lines


def test_an_export_of_a_trained_model_warns_of_what_it_was_trained_with(shapes_model, warned):
    model = YOLO(shapes_model)
    attach(model.model, FakeQuantization({0: (0.0, 6.0)}, (), {0}, "channel", "tflite"))
    with pytest.raises(RuntimeError, match="far enough"):
        model.export(target="axis-artpec", imgsz=160)
    assert [line.partition(":")[0] for line in warned] == ["target='axis-artpec'"]
    assert "granularity='channel' is slow there" in warned[0]


def test_an_export_with_an_option_that_breaks_there_warns_once(shapes_data, warned):
    with pytest.raises(RuntimeError, match="far enough"):
        YOLO(WEIGHTS).export(target="nxp-imx8mp", head="float", data=shapes_data, imgsz=160)
    assert warned == [
        "target='nxp-imx8mp': head='float' leaves work to the CPU there: the NPU computes 8 or 16 bit integers, so box "
        "decoding in float stays on the CPU [NXP AN13854, undated]"
    ]
    assert examine(YOLO(WEIGHTS).model, device("nxp-imx8mp"), (160, 160), ExportOptions()) == []
