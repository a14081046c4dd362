import importlib.util
import platform
from dataclasses import fields
from pathlib import Path

import pytest
import tomllib
from packaging.requirements import Requirement

from yolo_edgequant.errors import MissingToolError, OptionError
from yolo_edgequant.options import CHOICES, Corrections, ExportOptions, choices
from yolo_edgequant.targets.formats import PROFILES, Format, Profile, converter_gap, require_packages, resolve

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("litert", ("float", "channel", "activation", "float")),
        ("tflite", ("int8", "channel", "activation", "int8")),
        ("edgetpu", ("int8", "channel", "activation", "int8")),
        ("saved_model", ("float", "channel", "activation", "int8")),
        ("openvino", ("float", "channel", "activation", "float")),
    ],
)
def test_defaults(name, expected):
    request = resolve(PROFILES[name], ExportOptions())
    assert request.profile.format == name
    assert (request.head, request.granularity, request.ranges, request.io) == expected


def test_formats_are_ultralytics_names_and_each_has_a_profile():
    assert list(PROFILES) == ["litert", "tflite", "edgetpu", "saved_model", "openvino"]
    assert list(PROFILES) == list(Format)
    for name, profile in PROFILES.items():
        assert type(name) is str
        assert profile.format is Format(name)
        assert f"{profile.format}" == name
        assert profile.is_tflite == (name != "openvino")


@pytest.mark.parametrize(
    ("name", "base", "differences"),
    [
        ("tflite", "litert", {"format", "head", "io", "channels_last", "batches"}),
        ("edgetpu", "tflite", {"format", "io", "precision"}),
        ("saved_model", "edgetpu", {"format", "head", "separate", "extra", "packages"}),
        (
            "openvino",
            "litert",
            {"format", "granularity", "ranges", "corrections", "separate", "extra", "packages"},
        ),
    ],
)
def test_profiles_share_what_they_share(name, base, differences):
    one, other = PROFILES[name], PROFILES[base]
    assert {f.name for f in fields(Profile) if getattr(one, f.name) != getattr(other, f.name)} == differences
    assert set(other.packages) <= set(one.packages) or name == "openvino"


@pytest.mark.parametrize("name", PROFILES)
def test_a_profiles_choices_are_its_options_enums(name):
    for option, words in CHOICES.items():
        if option in {"outputs", "target"}:
            continue  # by head, below; and of any format, test_devices.py
        offered = getattr(PROFILES[name], option)
        assert {type(choice) for choice in offered} == {words}
        assert len(set(offered)) == len(offered)
    assert PROFILES[name].verify == (True, False)


def requirements(extra):
    """The distributions that an extra of pyproject.toml installs, those of the extras that it names included."""
    lines = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"][extra]
    for requirement in map(Requirement, lines):
        if requirement.name == "yolo-edgequant":
            for inner in requirement.extras:
                yield from requirements(inner)
        else:
            yield requirement.name.replace("-", "_")


@pytest.mark.parametrize("name", PROFILES)
def test_the_extra_installs_what_the_format_needs(name):
    assert {*PROFILES[name].packages, "ultralytics"} <= set(requirements(PROFILES[name].extra))


@pytest.mark.parametrize(
    ("given", "corrected"),
    [
        (None, ["bias", "cells", "equalization", "rounding", "scores"]),
        ("all", ["bias", "cells", "equalization", "rounding", "scores"]),
        ("bias", ["bias"]),
        ("cells", ["cells"]),
        ("equalization", ["equalization"]),
        ("rounding", ["rounding"]),
        ("scores", ["scores"]),
        ("none", []),
    ],
)
def test_what_is_corrected(given, corrected):
    request = resolve(PROFILES["litert"], ExportOptions(corrections=given))
    parts = [choice for choice in Corrections if choice not in {Corrections.ALL, Corrections.NONE}]
    assert [part for part in parts if request.corrects(part)] == corrected


@pytest.mark.parametrize("name", PROFILES)
def test_what_was_asked_for_is_kept_and_the_rest_filled(name):
    profile = PROFILES[name]
    default = resolve(profile, ExportOptions())
    for option in (*CHOICES.keys() - {"outputs", "target"}, "verify"):
        for value in set(getattr(profile, option)) & set(choices(option)):
            request = resolve(profile, ExportOptions(**{option: value}))
            assert getattr(request, option) == value
            others = {*CHOICES, "verify", "min_retention"} - {option}
            if (name, option, value) == ("tflite", "head", "float"):
                assert request.io == "float"  # which follows the head
                others.remove("io")
            if option == "head":
                others.remove("outputs")  # which follow it, too
            assert {o: getattr(request, o) for o in others} == {o: getattr(default, o) for o in others}


@pytest.mark.parametrize(
    ("name", "head", "possible"),
    [
        ("tflite", "raw", ["levels", "merged", "grid"]),
        ("openvino", "raw", ["levels", "merged", "grid"]),
        ("litert", "int8", ["separate", "single"]),
        ("openvino", "int8", ["single"]),
        ("saved_model", "int8", ["single"]),
        ("tflite", "float", ["single"]),
    ],
)
def test_arrangements_of_the_outputs_follow_the_head(name, head, possible):
    assert resolve(PROFILES[name], ExportOptions(head=head)).outputs == possible[0]
    for value in choices("outputs"):
        options = ExportOptions(head=head, outputs=value)
        if value in possible:
            assert resolve(PROFILES[name], options).outputs == value
        else:
            with pytest.raises(OptionError, match=f"outputs='{value}' is not possible.*{possible[-1]!r}"):
                resolve(PROFILES[name], options)


def test_a_retention_is_for_mixed_precision():
    assert resolve(PROFILES["tflite"], ExportOptions(precision="auto")).min_retention == 0.99
    assert resolve(PROFILES["tflite"], ExportOptions(precision="auto", min_retention=0.9)).min_retention == 0.9
    with pytest.raises(OptionError, match="needs precision='auto'"):
        resolve(PROFILES["tflite"], ExportOptions(min_retention=0.9))


def test_what_is_left_to_nncf_is_not_asked_for():
    with pytest.raises(OptionError, match=r"corrections='scores' needs ranges='activation'"):
        resolve(PROFILES["openvino"], ExportOptions(ranges="nncf", corrections="scores"))
    assert resolve(PROFILES["openvino"], ExportOptions(ranges="nncf", corrections="bias")).ranges == "nncf"


@pytest.mark.parametrize(
    ("name", "options", "takes"),
    [
        ("litert", {"io": "int8"}, "'float'"),
        ("litert", {"io": "uint8"}, "'float'"),
        ("edgetpu", {"io": "float"}, "'int8' or 'uint8'"),
        ("saved_model", {"io": "float"}, "'int8' or 'uint8'"),
        ("saved_model", {"head": "raw"}, "'float' or 'int8'"),
        ("openvino", {"io": "int8"}, "'float'"),
        ("openvino", {"granularity": "tensor"}, "'channel'"),
        ("openvino", {"ranges": "minmax", "head": "float"}, "'activation' or 'nncf'"),
        ("openvino", {"corrections": "cells"}, "'all' or 'bias' or 'scores' or 'none'"),
        ("tflite", {"ranges": "nncf"}, "'activation' or 'minmax'"),
        ("edgetpu", {"precision": "auto"}, "'int8'"),
        ("saved_model", {"precision": "auto"}, "'int8'"),
    ],
)
def test_impossible_combinations_say_what_is_possible(name, options, takes):
    option = next(iter(options))
    with pytest.raises(OptionError) as caught:
        resolve(PROFILES[name], ExportOptions(**options))
    assert str(caught.value) == (
        f"{option}={options[option]!r} is not possible with format={name!r}, which takes {takes}"
    )


def test_integer_only_layouts_follow_the_devices():
    assert {name for name, profile in PROFILES.items() if profile.channels_last} == {"tflite", "edgetpu", "saved_model"}
    assert {name for name, profile in PROFILES.items() if profile.batches} == {"litert", "openvino"}


@pytest.mark.parametrize("name", PROFILES)
def test_what_is_not_installed_is_named_with_the_extra(name, monkeypatch):
    profile = PROFILES[name]
    require_packages(profile)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == profile.packages[0] else find(n))
    with pytest.raises(MissingToolError) as caught:
        require_packages(profile)
    assert profile.packages[0] in str(caught.value)
    assert f"yolo-edgequant[{profile.extra}]" in str(caught.value)


def platform_is(monkeypatch, system, machine):
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)


def installed_but(monkeypatch, *missing):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in missing else object())


@pytest.mark.parametrize(
    ("system", "machine", "name"),
    [
        ("Linux", "aarch64", "Linux aarch64"),
        ("Linux", "armv7l", "Linux armv7l"),
        ("Windows", "AMD64", "Windows AMD64"),
        ("Windows", "ARM64", "Windows ARM64"),
        ("Darwin", "x86_64", "macOS x86_64"),
    ],
)
@pytest.mark.parametrize("missing", ["litert_torch", "litert_converter"])
def test_where_the_converter_has_no_wheels_it_says_so_and_names_no_pip(monkeypatch, system, machine, name, missing):
    platform_is(monkeypatch, system, machine)
    installed_but(monkeypatch, missing)
    for format, profile in PROFILES.items():
        if profile.is_tflite:
            with pytest.raises(MissingToolError) as caught:
                require_packages(profile)
            assert str(caught.value) == (
                f"format={format!r} cannot be exported here: litert-converter has wheels for Linux x86-64 and macOS "
                f"arm64 alone, not for {name}; export it on one of those, or format='openvino', which also works on "
                "Linux aarch64 and Windows"
            )
    require_packages(PROFILES["openvino"])


@pytest.mark.parametrize(("system", "machine"), [("Linux", "x86_64"), ("Darwin", "arm64")])
def test_where_the_converter_has_wheels_the_extra_is_named(monkeypatch, system, machine):
    platform_is(monkeypatch, system, machine)
    assert converter_gap() is None
    installed_but(monkeypatch, "litert_torch")
    with pytest.raises(
        MissingToolError, match=r"needs litert_torch; install with: pip install 'yolo-edgequant\[litert\]'"
    ):
        require_packages(PROFILES["tflite"])


def test_a_converter_that_is_there_is_taken_on_any_platform(monkeypatch):
    platform_is(monkeypatch, "Linux", "riscv64")
    installed_but(monkeypatch)
    for profile in PROFILES.values():
        require_packages(profile)
    installed_but(monkeypatch, "nncf", "ai_edge_quantizer")
    for name, extra in (("openvino", "openvino"), ("litert", "litert")):
        with pytest.raises(MissingToolError, match=rf"install with: pip install 'yolo-edgequant\[{extra}\]'"):
            require_packages(PROFILES[name])
