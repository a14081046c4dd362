"""Older releases of Ultralytics, each in a process of its own: the oldest, and one that had no LiteRT yet.

All of them, with all jobs: `python -m tests.versions`.
"""

import pytest
from packaging.specifiers import SpecifierSet

from tests.versions import BOUNDS, VERSIONS, Result, exports, run_version, table
from yolo_edgequant.patches import TESTED

JOBS = ("apply and undo", "FP32 untouched", "litert float", "tflite int8", "openvino raw")


def test_the_versions_to_try_are_the_range_that_is_said_to_be_tested():
    tested = SpecifierSet(TESTED)
    assert {f">={VERSIONS[0]}", f"<={VERSIONS[-1]}"} == {str(bound) for bound in tested}
    assert all(tested.contains(version) for version in VERSIONS)


def test_the_table_says_what_worked_what_was_refused_and_what_failed():
    results = {
        "1.0": {"a": Result(0.987, None, False, 30.0), "b": Result(None, "not here", True, 30.0)},
        "2.0": {"a": Result(None, "IndexError: two\nlines", False, 60.0), "b": Result(None, None, False, 0.0)},
    }
    lines = table(results).splitlines()
    assert lines[:5] == [
        "| | 1.0 | 2.0 |",
        "| --- | --- | --- |",
        "| a | 98.7% | FAILED |",
        "| b | refused | yes |",
        "| minutes | 1.0 | 1.0 |",
    ]
    assert lines[-3:] == ["- 1.0 b: not here", "", "- 2.0 a: IndexError: two lines"]


def test_every_head_and_format_is_tried_against_a_bound():
    tried = {(arguments["format"], arguments["head"]) for _, arguments in exports().values()}
    assert {(format, head) for format in ("litert", "tflite", "openvino") for head in BOUNDS} <= tried


@pytest.mark.export
@pytest.mark.parametrize("version", ["8.3.253", "8.4.31"])
def test_an_older_release_works(version, tmp_path):
    results = run_version(version, tmp_path, ",".join(JOBS))
    assert {name: result.error for name, result in results.items()} == dict.fromkeys(JOBS)
