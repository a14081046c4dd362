import sys
import types

import pytest

from yolo_edgequant import patching
from yolo_edgequant.errors import UnsupportedVersionError
from yolo_edgequant.options import options
from yolo_edgequant.patches import REGISTRY, doors
from yolo_edgequant.targets.formats import PROFILES

EXPORTER = next(patch for patch in REGISTRY.patches if patch.target == "Exporter.__call__")
PARSER = next(patch for patch in REGISTRY.patches if patch.target == "parse_model")


def call(door, *args, overrides=(), **kwargs):
    """What a door does with a model and arguments: what reaches upstream's method."""
    model = types.SimpleNamespace(overrides=dict(overrides))
    reached = []

    def original(self, *given, **named):
        assert self is model
        reached.append((given, named))
        return "upstream's own"

    assert door(original, model, *args, **kwargs) == "upstream's own"
    return reached.pop()


@pytest.fixture
def lacking(monkeypatch):
    """Let the installed Ultralytics lack something that a patch needs."""
    monkeypatch.setattr(REGISTRY, "_forced", False)

    def lacks(*patches):
        monkeypatch.setitem(vars(REGISTRY), "problems", dict.fromkeys(patches, "ultralytics.x has no y"))

    return lacks


@pytest.fixture
def ours(monkeypatch):
    """Stand-ins of the modules behind the doors, and what reached them."""
    reached = []
    for module, name in (("exporter", "model_export"), ("training", "model_train")):
        stand_in = types.SimpleNamespace(**{name: lambda *args, **kwargs: reached.append((args, kwargs)) or "ours"})
        monkeypatch.setitem(sys.modules, f"yolo_edgequant.patches.{module}", stand_in)
    return reached


@pytest.fixture
def nothing_behind(monkeypatch):
    """Whoever goes through a door fails."""
    for module in ("exporter", "training"):
        monkeypatch.setitem(sys.modules, f"yolo_edgequant.patches.{module}", None)


def test_an_export_goes_to_ours_where_the_exporter_is_patched(ours):
    model = types.SimpleNamespace(overrides={})
    assert doors.model_export(len, model, format="onnx", head="raw") == "ours"
    assert ours == [((len, model), {"format": "onnx", "head": "raw"})]


def test_a_training_goes_to_ours_where_the_parser_is_patched(ours):
    model = types.SimpleNamespace(overrides={})
    assert doors.model_train(len, model, "trainer", epochs=1, activation="relu") == "ours"
    assert doors.model_train(len, model, epochs=1) == "ours"
    assert ours == [((len, model, "trainer"), {"epochs": 1, "activation": "relu"}), ((len, model, None), {"epochs": 1})]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"format": "onnx", "half": True},
        {"format": "openvino"},
        {"format": "openvino", "quantize": 16, "data": "x.yaml"},
        {"format": "litert", "quantize": None},
        {"format": "tflite", "int8": False},
        {"format": "torchscript", "int8": True},
        {"format": "engine", "quantize": 8, "data": "x.yaml"},
        {"format": "onnx", "quantize": "int8"},
    ],
)
def test_an_export_of_upstreams_own_stays_its_own(lacking, nothing_behind, arguments):
    lacking(EXPORTER)
    assert call(doors.model_export, **arguments) == ((), arguments)
    assert call(doors.model_export, overrides={"model": "x.pt", "task": "detect"}, **arguments) == ((), arguments)


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize(
    "precision", [{"quantize": 8}, {"quantize": "8"}, {"quantize": "INT8"}, {"quantize": "w8a8"}, {"int8": True}]
)
def test_an_export_of_ours_is_refused_in_one_line(lacking, nothing_behind, name, precision):
    lacking(EXPORTER)
    with pytest.raises(UnsupportedVersionError) as caught:
        call(doors.model_export, format=name.upper(), **precision)
    message = str(caught.value)
    assert message.startswith(f"format='{name}', quantize=8 is not possible with ultralytics {REGISTRY.version}: ")
    assert "ultralytics.x has no y, which yolo_edgequant needs" in message
    assert f"({REGISTRY.tested}), or set YOLO_EDGEQUANT_FORCE=1" in message
    assert "\n" not in message


def test_an_edge_tpu_file_is_always_in_int8(lacking, nothing_behind):
    lacking(EXPORTER)
    with pytest.raises(UnsupportedVersionError, match=r"^format='edgetpu', quantize=8 is not possible"):
        call(doors.model_export, format="edgetpu")


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        ({"format": "onnx", "io": "int8", "head": "raw"}, "head='raw', io='int8'"),
        ({"verify": False}, "verify=False"),
        ({"format": "tflite", "quantize": 8, "head": "raw"}, "format='tflite', quantize=8, head='raw'"),
    ],
)
def test_our_options_are_refused_whatever_the_format(lacking, nothing_behind, arguments, asked):
    lacking(EXPORTER)
    with pytest.raises(UnsupportedVersionError) as caught:
        call(doors.model_export, **arguments)
    assert str(caught.value).startswith(f"{asked} is not possible with ultralytics")


def test_our_options_around_the_call_are_refused(lacking, nothing_behind):
    lacking(EXPORTER)
    with options(head="raw"), pytest.raises(UnsupportedVersionError, match=r"^head='raw' is not possible"):
        call(doors.model_export, format="onnx")
    with options():
        call(doors.model_export, format="onnx")


def test_arguments_that_the_model_carries_count(lacking, nothing_behind):
    lacking(EXPORTER)
    with pytest.raises(UnsupportedVersionError, match=r"^format='litert', quantize=8 is"):
        call(doors.model_export, overrides={"quantize": 8}, format="litert")
    assert call(doors.model_export, overrides={"quantize": 8}, format="litert", quantize=16) == (
        (),
        {"format": "litert", "quantize": 16},
    )


def test_options_that_are_left_open_ask_for_nothing(lacking, nothing_behind):
    lacking(EXPORTER)
    (_, named) = call(doors.model_export, format="onnx", head=None)
    assert named == {"format": "onnx"}, "or upstream would refuse an argument that it does not know"


def test_a_training_of_upstreams_own_stays_its_own(lacking, nothing_behind):
    lacking(PARSER)
    assert call(doors.model_train, "trainer", epochs=1) == (("trainer",), {"epochs": 1})
    assert call(doors.model_train, epochs=1) == ((None,), {"epochs": 1})
    assert call(doors.model_train, epochs=1, activation=None) == ((None,), {"epochs": 1})


def test_a_training_with_another_activation_is_refused_in_one_line(lacking, nothing_behind):
    lacking(PARSER)
    with pytest.raises(UnsupportedVersionError) as caught:
        call(doors.model_train, epochs=1, activation="relu6")
    message = str(caught.value)
    assert message.startswith(f"activation='relu6' is not possible with ultralytics {REGISTRY.version}: ultralytics.x")
    assert "\n" not in message


def test_each_door_closes_by_itself(lacking, ours):
    lacking(EXPORTER)
    assert doors.model_train(len, types.SimpleNamespace(overrides={}), activation="relu6") == "ours"
    lacking(PARSER)
    assert doors.model_export(len, types.SimpleNamespace(overrides={}), head="raw") == "ours"
    assert len(ours) == 2


def test_both_doors_are_of_the_list():
    there = {patch.target: patch for patch in REGISTRY.patches if patch.is_door}
    assert set(there) == {"Model.export", "Model.train"}
    assert set(there["Model.export"].serves) == set(PROFILES)
    for patch in there.values():
        assert patching._resolved(patch.replacement) in {doors.model_export, doors.model_train}
    served = {purpose for patch in REGISTRY.patches for purpose in patch.serves}
    assert served == {purpose for patch in there.values() for purpose in patch.serves}
    assert set(EXPORTER.serves) == set(PROFILES), "or a door would let through what it could not do"
