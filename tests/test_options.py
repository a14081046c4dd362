import json
import threading

import pytest

from yolo_edgequant.errors import EdgeQuantError, OptionError
from yolo_edgequant.options import (
    CHOICES,
    IO,
    NAMES,
    Corrections,
    ExportOptions,
    Granularity,
    Head,
    Precision,
    RangeEstimator,
    Target,
    choices,
    current,
    options,
)
from yolo_edgequant.targets.formats import PROFILES, resolve


@pytest.mark.parametrize("name", sorted(CHOICES))
def test_every_option_takes_its_choices_and_nothing_else(name):
    for choice in choices(name):
        for given in (choice, choice.value):
            option = getattr(ExportOptions(**{name: given}), name)
            assert option is choice
            assert type(option) is CHOICES[name]
    listed = ", ".join(repr(choice.value) for choice in choices(name))
    with pytest.raises(OptionError) as caught:
        ExportOptions(**{name: "other"})
    assert str(caught.value) == f"{name}='other' is not one of {listed}"
    assert isinstance(caught.value, EdgeQuantError)
    assert isinstance(caught.value, ValueError)


def test_the_choices_are_these():
    assert choices("head") == ("int8", "float", "raw")
    assert choices("granularity") == ("channel", "tensor")
    assert choices("ranges") == ("activation", "minmax", "nncf")
    assert choices("io") == ("int8", "uint8", "float")
    assert choices("corrections") == ("all", "bias", "cells", "equalization", "rounding", "scores", "none")
    assert choices("precision") == ("int8", "auto")
    assert choices("verify") == (True, False)
    assert choices("target") == (
        *("coral-edgetpu", "frigate-edgetpu", "nxp-imx8mp", "nxp-imx93", "nxp-imx95", "axis-artpec"),
        *("raspberrypi", "arm-cpu", "intel-cpu", "intel-gpu", "intel-npu", "generic-int8"),
    )


@pytest.mark.parametrize(
    "member",
    [
        Head.RAW,
        Granularity.TENSOR,
        RangeEstimator.MINMAX,
        IO.UINT8,
        Corrections.CELLS,
        Precision.AUTO,
        Target.INTEL_NPU,
    ],
    ids=lambda member: type(member).__name__,
)
def test_an_enum_is_its_word_in_messages_names_and_json(member):
    assert str(member) == member.value == member
    assert repr(member) == repr(member.value)
    assert f"{member}_{member!r}" == f"{member.value}_{member.value!r}"
    assert json.dumps([member]) == json.dumps([member.value])
    assert {member.value: 1}[member] == 1


@pytest.mark.parametrize("value", [1, 0, "True", "no", None, 1.0])
def test_verify_is_true_or_false(value):
    assert ExportOptions(verify=False).given() == {"verify": False}
    if value is None:
        assert ExportOptions(verify=None).given() == {}
        return
    with pytest.raises(OptionError) as caught:
        ExportOptions(verify=value)
    assert str(caught.value) == f"verify={value!r} is not one of True, False"


@pytest.mark.parametrize("value", [0, 1.01, -1, True, "0.9", float("nan"), [0.9]])
def test_a_retention_out_of_range_is_refused(value):
    assert ExportOptions(min_retention=0.95).min_retention == 0.95
    with pytest.raises(OptionError) as caught:
        ExportOptions(min_retention=value)
    assert str(caught.value) == f"min_retention={value!r} is not a number above 0 and at most 1"


def test_names_are_all_options():
    assert {*CHOICES, "verify", "min_retention"} == NAMES


@pytest.mark.parametrize("name", sorted(CHOICES))
@pytest.mark.parametrize("value", [True, 8, 0.5, "", "RAW", "Int8", "int8 ", ["int8"], {"int8": 1}, b"int8"], ids=repr)
def test_a_value_of_the_wrong_type_or_case_is_refused_in_one_line(name, value):
    with pytest.raises(OptionError) as caught:
        ExportOptions(**{name: value})
    message = str(caught.value)
    assert message.startswith(f"{name}={value!r} is not one of {choices(name)[0]!r}, ")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "head", "io"),
    [
        ("tflite", None, "int8"),
        ("tflite", "int8", "int8"),
        ("tflite", "raw", "int8"),
        ("tflite", "float", "float"),
        ("edgetpu", "float", "int8"),
        ("edgetpu", None, "int8"),
        ("saved_model", "float", "int8"),
        ("litert", "int8", "float"),
        ("openvino", "int8", "float"),
    ],
)
def test_the_type_of_the_input_follows_the_head_where_it_is_left_open(name, head, io):
    assert resolve(PROFILES[name], ExportOptions(head=head)).io == io


@pytest.mark.parametrize("io", ["int8", "uint8", "float"])
def test_the_type_of_the_input_is_kept_where_it_was_given(io):
    assert resolve(PROFILES["tflite"], ExportOptions(head="float", io=io)).io == io


def test_of_names_the_unknown_option_and_the_known_ones():
    with pytest.raises(OptionError, match="unknown option 'heads'; options are corrections, granularity, head, "):
        ExportOptions.of({"heads": "float", "io": "int8"})


def test_of_checks_values_too():
    with pytest.raises(OptionError, match="io='int4'"):
        ExportOptions.of({"io": "int4"})


def test_given_has_only_what_was_set():
    assert ExportOptions().given() == {}
    assert ExportOptions.of({"head": "float", "io": None}).given() == {"head": "float"}


def test_merge_lets_the_other_win_only_where_it_is_set():
    merged = ExportOptions(head="float", io="int8").merge(ExportOptions(io="uint8", ranges="minmax"))
    assert merged == ExportOptions(head="float", io="uint8", ranges="minmax")


def test_contexts_nest_and_the_inner_one_wins():
    with options(head="float", io="int8") as outer:
        with options(head="int8", ranges="minmax") as inner:
            assert current() is inner
            assert inner == ExportOptions(head="int8", io="int8", ranges="minmax")
        assert current() is outer
    assert current() == ExportOptions()


def test_the_outer_options_are_back_after_an_exception():
    with options(io="uint8"):
        with pytest.raises(RuntimeError, match="inside"), options(head="float"):
            raise RuntimeError("inside")
        assert current() == ExportOptions(io="uint8")
    assert current() == ExportOptions()


def test_a_refused_option_changes_nothing():
    with options(head="float"):
        with pytest.raises(OptionError), options(head="other"):
            pass
        assert current() == ExportOptions(head="float")


def test_a_thread_started_inside_a_context_sees_the_defaults():
    seen = []
    with options(head="float"):
        thread = threading.Thread(target=lambda: seen.append(current()))
        thread.start()
        thread.join()
    assert seen == [ExportOptions()]


def test_two_threads_do_not_see_each_others_options():
    both_inside = threading.Barrier(2, timeout=10)
    seen = {}

    def work(head):
        with options(head=head):
            both_inside.wait()
            seen[head] = current().head
            both_inside.wait()
        seen[head, "after"] = current().head

    threads = [threading.Thread(target=work, args=(head,)) for head in ("float", "int8")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {"float": "float", "int8": "int8", ("float", "after"): None, ("int8", "after"): None}
