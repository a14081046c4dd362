import importlib.util

import pytest

from yolo_edgequant.errors import MissingToolError, OptionError
from yolo_edgequant.options import CHOICES, ExportOptions
from yolo_edgequant.targets.formats import PROFILES, require_packages, resolve


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("litert", ("float", "channel", "activation", "float")),
        ("tflite", ("int8", "channel", "activation", "int8")),
        ("edgetpu", ("int8", "channel", "activation", "int8")),
        ("saved_model", ("float", "channel", "activation", "int8")),
        ("openvino", ("float", "channel", "nncf", "float")),
    ],
)
def test_defaults(name, expected):
    request = resolve(PROFILES[name], ExportOptions())
    assert request.profile.format == name
    assert (request.head, request.granularity, request.ranges, request.io) == expected


def test_every_profile_is_covered_by_the_defaults_above():
    assert set(PROFILES) == {"litert", "tflite", "edgetpu", "saved_model", "openvino"}


@pytest.mark.parametrize("name", PROFILES)
def test_what_was_asked_for_is_kept_and_the_rest_filled(name):
    profile = PROFILES[name]
    default = resolve(profile, ExportOptions())
    for option in CHOICES:
        for value in getattr(profile, option):
            if value not in CHOICES[option]:
                continue
            request = resolve(profile, ExportOptions(**{option: value}))
            assert getattr(request, option) == value
            others = [o for o in CHOICES if o != option]
            assert [getattr(request, o) for o in others] == [getattr(default, o) for o in others]


def test_a_retention_is_for_mixed_precision():
    assert resolve(PROFILES["tflite"], ExportOptions(precision="auto")).min_retention == 0.99
    assert resolve(PROFILES["tflite"], ExportOptions(precision="auto", min_retention=0.9)).min_retention == 0.9
    with pytest.raises(OptionError, match="needs precision='auto'"):
        resolve(PROFILES["tflite"], ExportOptions(min_retention=0.9))


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
        ("openvino", {"ranges": "activation"}, "'nncf'"),
        ("openvino", {"ranges": "minmax", "head": "float"}, "'nncf'"),
    ],
)
def test_impossible_combinations_say_what_is_possible(name, options, takes):
    option = next(iter(options))
    with pytest.raises(OptionError) as caught:
        resolve(PROFILES[name], ExportOptions(**options))
    assert str(caught.value) == (
        f"{option}={options[option]!r} is not possible with format={name!r}, which takes {takes}"
    )


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_offer_only_choices_that_options_can_name(name):
    profile = PROFILES[name]
    for option, choices in CHOICES.items():
        offered = set(getattr(profile, option))
        assert offered
        assert offered <= {*choices, "nncf"}


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
