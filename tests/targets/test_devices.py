import re
from pathlib import Path

import pytest
import tomllib

from yolo_edgequant.errors import OptionError
from yolo_edgequant.options import ExportOptions, Target
from yolo_edgequant.targets import devices
from yolo_edgequant.targets.devices import Effect, Source, device
from yolo_edgequant.targets.formats import PROFILES, resolve

FOLDER = Path(devices.__file__).parent / "profiles"
MINIMAL = """
title = "A device"
accelerator = "its NPU"
formats = ["tflite", "litert"]
layout = "NHWC"

[sources]
page = { where = "example.org", date = "2026-01" }
"""
DEFAULT = """
[[defaults]]
option = "head"
value = "raw"
why = "so"
source = "page"
"""


def read(text):
    return devices.read(Target.GENERIC_INT8, text)


def test_the_names_are_the_files():
    assert sorted(path.stem for path in FOLDER.iterdir()) == sorted(Target)
    assert [one.name for one in devices.devices()] == list(Target)


def test_an_unknown_name_is_refused_with_the_list_of_them():
    with pytest.raises(OptionError) as caught:
        device("nxp-imx8")
    assert str(caught.value).startswith("target='nxp-imx8' is not one of 'coral-edgetpu', 'frigate-edgetpu', ")
    assert all(repr(name.value) in str(caught.value) for name in Target)


def sources(value):
    """All sources of a profile."""
    if isinstance(value, Source):
        yield value
    elif hasattr(value, "__dataclass_fields__"):
        for name in value.__dataclass_fields__:
            yield from sources(getattr(value, name))
    elif isinstance(value, (tuple, list, dict)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from sources(one)


@pytest.mark.parametrize("name", Target)
def test_every_entry_has_a_source_and_a_date_and_every_source_is_used(name):
    text = (FOLDER / f"{name}.toml").read_text()
    listed = tomllib.loads(text)["sources"]
    for source in listed.values():
        assert re.fullmatch(r"20\d\d(-\d\d(-\d\d)?)?|undated", source["date"])
    assert {key for key in listed if f'source = "{key}"' in text} == set(listed)
    assert {Source(**source) for source in listed.values()} <= set(sources(device(name)))


@pytest.mark.parametrize("name", Target)
def test_what_a_profile_chooses_its_formats_can_hold_and_it_warns_of_none_of_it(name):
    profile = device(name)
    warned = {(entry.option, entry.value) for entry in profile.cautions}
    for number, format in enumerate(profile.formats):
        options = profile.fill(ExportOptions(target=name), PROFILES[format])
        request = resolve(PROFILES[format], options)
        assert request.target is name
        for entry in profile.defaults:
            assert (entry.option, entry.value) not in warned
            if number == 0:
                assert getattr(request, entry.option) == entry.value
    assert PROFILES[profile.formats[0]].channels_last == (profile.layout == "NHWC")
    assert (profile.nncf is not None) == (profile.formats[0] == "openvino")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("coral-edgetpu", ("edgetpu", "raw", "levels", "channel", "int8")),
        ("frigate-edgetpu", ("edgetpu", "raw", "merged", "channel", "int8")),
        ("nxp-imx8mp", ("tflite", "raw", "grid", "channel", "int8")),
        ("nxp-imx93", ("tflite", "raw", "grid", "channel", "int8")),
        ("nxp-imx95", ("tflite", "raw", "grid", "tensor", "int8")),
        ("axis-artpec", ("tflite", "int8", "separate", "tensor", "int8")),
        ("raspberrypi", ("litert", "float", "single", "channel", "float")),
        ("arm-cpu", ("litert", "float", "single", "channel", "float")),
        ("intel-cpu", ("openvino", "float", "single", "channel", "float")),
        ("intel-gpu", ("openvino", "float", "single", "channel", "float")),
        ("intel-npu", ("openvino", "float", "single", "channel", "float")),
        ("generic-int8", ("tflite", "int8", "separate", "channel", "int8")),
    ],
)
def test_what_an_export_for_each_is(name, expected):
    profile = PROFILES[device(name).formats[0]]
    request = resolve(profile, device(name).fill(ExportOptions(), profile))
    assert (profile.format, request.head, request.outputs, request.granularity, request.io) == expected


def test_what_was_asked_for_wins_over_the_profile():
    frigate, tflite = device("frigate-edgetpu"), PROFILES["tflite"]
    assert frigate.fill(ExportOptions(outputs="grid", io="uint8"), tflite).given() == {
        "head": "raw",
        "outputs": "grid",
        "io": "uint8",
    }
    # what is arranged and of which type follows the head
    float_head = frigate.fill(ExportOptions(head="float"), tflite)
    assert float_head.given() == {"head": "float"}
    assert resolve(tflite, float_head).io == "float"
    # what another format cannot hold is left to it
    assert device("nxp-imx95").fill(ExportOptions(), PROFILES["openvino"]).granularity is None


def test_a_format_that_is_not_for_the_device_is_refused():
    assert device("coral-edgetpu").format("tflite") == "tflite"
    with pytest.raises(OptionError) as caught:
        device("coral-edgetpu").format("openvino")
    assert str(caught.value) == (
        "format='openvino' is not for target='coral-edgetpu', which takes 'edgetpu' or 'tflite'; leave it out"
    )


def test_the_same_hardware_is_written_down_once():
    coral, frigate = device("coral-edgetpu"), device("frigate-edgetpu")
    assert frigate.hardware_of == "coral-edgetpu"
    assert frigate.operators is coral.operators
    assert (frigate.memory, frigate.models) == (coral.memory, coral.models)
    assert {entry.name for entry in frigate.activations} == {entry.name for entry in coral.activations}
    assert "[[operators" not in (FOLDER / "frigate-edgetpu.toml").read_text()
    assert (frigate.tasks, coral.tasks) == (("detect",), ())


def test_facts_that_the_checks_go_by():
    effects = {one.name: {entry.name: entry.effect for entry in one.activations} for one in devices.devices()}
    assert effects["coral-edgetpu"]["hardswish"] == Effect.CORRUPTS
    assert effects["coral-edgetpu"]["silu"] == effects["nxp-imx93"]["silu"] == Effect.WORKS
    models = {(entry.family, *entry.scales): entry.effect for entry in device("nxp-imx8mp").models}
    assert models["yolo11", "s"] == Effect.CORRUPTS
    assert models["yolo26", "s"] == Effect.FAILS
    assert [entry.bytes for entry in device("coral-edgetpu").memory] == [8_000_000]
    assert [device(name).nncf for name in ("intel-cpu", "intel-gpu", "intel-npu")] == ["CPU", "GPU", "NPU"]
    assert {one.name for one in devices.devices() if one.operators} == {
        *("coral-edgetpu", "frigate-edgetpu", "nxp-imx8mp", "nxp-imx93")
    }


def test_a_minimal_profile_knows_nothing_more():
    profile = read(MINIMAL + DEFAULT)
    assert (profile.operators, profile.size, profile.nncf, profile.tasks, profile.activations) == (
        None,
        None,
        None,
        (),
        (),
    )
    assert profile.default("head") == "raw"
    assert profile.default("io") is None


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('layout = "NHWC"', 'layout = "NHWC"\ncolour = "red"', "generic-int8.toml: unknown key 'colour'"),
        ('layout = "NHWC"', "", "generic-int8.toml lacks 'layout'"),
        ('layout = "NHWC"', 'layout = "HWC"', "generic-int8.toml: 'layout' is 'HWC', not one of NHWC, NCHW"),
        ('title = "A device"', "title = 7", "generic-int8.toml: 'title' is 7, not a text"),
        ('["tflite", "litert"]', '"tflite"', "generic-int8.toml: 'formats' is 'tflite', not a list of texts"),
        ('["tflite", "litert"]', '["onnx"]', "generic-int8.toml: 'formats' is 'onnx', not one of litert, tflite"),
        (', date = "2026-01"', "", "generic-int8.toml, sources, page lacks 'date'"),
        ('source = "page"', "", "generic-int8.toml, defaults[0] lacks 'source'"),
        ('source = "page"', 'source = "book"', "generic-int8.toml, defaults[0]: source 'book' is not among page"),
        ('option = "head"', 'option = "verify"', "'option' is 'verify', not one of head, outputs, granularity, io"),
        ('value = "raw"', 'value = "cooked"', "'value' is 'cooked', not one of int8, float, raw"),
        ('why = "so"', 'why = "so"\nbecause = "so"', "generic-int8.toml, defaults[0]: unknown key 'because'"),
        ("[[defaults]]", "[defaults]", "'defaults' is {"),
    ],
)
def test_a_profile_is_read_strictly(before, after, said):
    text = MINIMAL + DEFAULT
    assert before in text
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        read(text.replace(before, after, 1))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("max_rank = 0", "'max_rank' is 0, not a positive whole number"),
        ("max_rank = true", "'max_rank' is True, not a positive whole number"),
        ("max_ranks = 3", "unknown key 'max_ranks'"),
        ("types = [8]", "'types' is [8], not a list of texts"),
        ("static = 1", "'static' is 1, not true or false"),
        ('[[operators.entries]]\nkinds = ["ADD"]\nsource = "page"', "operators, entries[0] lacks 'accelerator'"),
        (
            '[[operators.entries]]\nkinds = ["ADD", "ADD"]\naccelerator = true\nsource = "page"',
            "operators: ADD is there twice",
        ),
    ],
)
def test_rules_are_read_strictly(rules, said):
    text = f'{MINIMAL}\n[operators]\nsource = "page"\n'
    assert read(text).operators.by_kind == {}
    with pytest.raises(ValueError, match=re.escape(said)):
        read(f"{text}{rules}\n")


def test_operators_are_a_devices_own_or_anothers():
    text = MINIMAL.replace("[sources]", 'hardware_of = "coral-edgetpu"\n\n[sources]')
    assert read(text).operators is device("coral-edgetpu").operators
    assert read(text).size == device("coral-edgetpu").size
    own = read(f'{text}\n[operators]\nsource = "page"\nmax_rank = 3\n').operators
    assert (own.common.max_rank, own.by_kind) == (3, {})
