"""Some of Ultralytics' own export tests, with the import; `python -m tests.upstream_exports` runs all."""

import os
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from tests import upstream_exports
from tests.upstream_exports import Comparison, Outcome, Release, read, table

HERE = Path(__file__).parent
pytestmark = pytest.mark.export


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """The installed release; where the package index is out of reach a skip, and in CI a failure."""
    try:
        return Release(version("ultralytics"), tmp_path_factory.mktemp("upstream"))
    except subprocess.CalledProcessError as error:
        if os.environ.get("CI") == "true" or "download" not in error.cmd:
            raise
        pytest.skip(f"not on this machine, and not to be fetched: {error}")


def test_upstreams_own_tests_pass_with_the_import(release):
    chosen = "(openvino_matrix or litert_matrix) and (classify-False-8-1 or classify-8)"
    outcomes = release.run(chosen, "yolo_edgequant")
    assert len(outcomes) == 2
    assert {outcome.name for outcome in outcomes.values()} == {"passed"}, outcomes


def test_a_test_that_ends_the_process_costs_no_other(tmp_path, monkeypatch):
    tests = tmp_path / "sdist" / "tests"
    tests.mkdir(parents=True)
    (tests / "conftest.py").write_text(
        "def pytest_addoption(parser): parser.addoption('--slow', action='store_true')\n"
    )
    (tests / "test_exports.py").write_text(
        "import os, time\ndef test_a(): pass\ndef test_b(): os._exit(3)\ndef test_c(): time.sleep(60)\n"
        "def test_d(): assert 0, 'no images'\n"
    )
    monkeypatch.setattr(upstream_exports, "unpacked", lambda *_: tmp_path)
    monkeypatch.setattr(upstream_exports, "upstream_tests", lambda *_: tests.parent)
    monkeypatch.setattr(upstream_exports, "LIMIT", 2)
    monkeypatch.setattr(Release, "_prepare", lambda self: shutil.copy(HERE / "upstream_plugin.py", self.folder))
    outcomes = Release("0.0.0", tmp_path).run("test")
    assert {name: (outcome.name, outcome.reason.splitlines()[:1]) for name, outcome in outcomes.items()} == {
        "test_a": ("passed", []),
        "test_b": ("failed", ["did not end"]),
        "test_c": ("failed", ["did not end"]),
        "test_d": ("failed", ["AssertionError: no images assert 0"]),
    }


def test_a_comparison_shows_what_the_import_changes(tmp_path):
    (tmp_path / "outcomes.jsonl").write_text(
        '{"test": "a", "name": "failed", "reason": "did not end", "seconds": 0.0}\n'
        '{"test": "a", "name": "passed", "reason": "", "seconds": 60}\n'
        '{"test": "b", "name": "failed", "reason": "no images", "seconds": 0.0}\n'
        '{"test": "c", "name": "skipped", "reason": "not here", "seconds": 0.0}\n'
    )
    one = read(tmp_path / "outcomes.jsonl")
    assert one == {
        "a": Outcome("passed", "", 60),
        "b": Outcome("failed", "no images"),
        "c": Outcome("skipped", "not here"),
    }
    other = {"b": Outcome("passed"), "c": Outcome("skipped", "not here"), "the process": Outcome("failed", "killed")}
    comparison = Comparison(one, other)
    assert comparison.broken == ["a", "the process"]
    assert Comparison({"b": Outcome("passed")}, one).broken == ["b"]
    shown = table({"8.4.190": comparison})
    assert "| 8.4.190 | 1 → 1 | 1 → 1 | 1 → 1 | 1.0 → 0.0 |" in shown
    assert "- passed → absent: did not run\n  - 8.4.190 a" in shown
    assert "- failed → passed: no images\n  - 8.4.190 b" in shown
    assert "8.4.190 c" not in shown
