import threading

import pytest

from yolo_edgequant.errors import EdgeQuantError, OptionError
from yolo_edgequant.options import CHOICES, NAMES, ExportOptions, current, options


@pytest.mark.parametrize("name", sorted(CHOICES))
def test_every_option_takes_its_choices_and_nothing_else(name):
    for choice in CHOICES[name]:
        assert getattr(ExportOptions(**{name: choice}), name) == choice
    with pytest.raises(OptionError, match=f"^{name}='other' is not one of {CHOICES[name][0]!r}, ") as caught:
        ExportOptions(**{name: "other"})
    assert isinstance(caught.value, EdgeQuantError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("value", [0, 1.01, -1, True, "0.9"])
def test_a_retention_out_of_range_is_refused(value):
    assert ExportOptions(min_retention=0.95).min_retention == 0.95
    with pytest.raises(OptionError, match="above 0 and at most 1"):
        ExportOptions(min_retention=value)


def test_names_are_all_options():
    assert {*CHOICES, "min_retention"} == NAMES


@pytest.mark.parametrize("value", [True, 8, "", "FLOAT"])
def test_a_value_of_the_wrong_type_or_case_is_refused(value):
    with pytest.raises(OptionError, match="is not one of"):
        ExportOptions(head=value)


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
    merged = ExportOptions(head="float", io="int8").merge(ExportOptions(io="uint8", ranges="mse"))
    assert merged == ExportOptions(head="float", io="uint8", ranges="mse")


def test_contexts_nest_and_the_inner_one_wins():
    with options(head="float", io="int8") as outer:
        with options(head="int8", ranges="mse") as inner:
            assert current() is inner
            assert inner == ExportOptions(head="int8", io="int8", ranges="mse")
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
