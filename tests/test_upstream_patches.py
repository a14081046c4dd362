"""The patches in contrib/ on a release of Ultralytics; `python -m tests.upstream_patches` says more of each."""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

from tests.upstream_patches import (
    BASE,
    UpstreamPatch,
    Verdict,
    examine,
    failures,
    git,
    patched,
    read_series,
    source,
    style,
    table,
)
from tests.versions import HERE
from yolo_edgequant.demo.train import WEIGHTS
from yolo_edgequant.series import QUANTIZER_SERIES, SERIES, folder_of

PATCHES = read_series(folder_of(SERIES))
pytestmark = pytest.mark.export


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("upstream")


@pytest.fixture(scope="module")
def base(out):
    """The release that the series is made for; where the package index is out of reach a skip, and in CI a failure."""
    try:
        return source(BASE, out)
    except subprocess.CalledProcessError as error:
        if os.environ.get("CI") == "true" or "download" not in error.cmd:
            raise
        pytest.skip(f"not on this machine, and not to be fetched: {error}")


@pytest.fixture(scope="module")
def all_applied(base, out):
    assert patched(base, out / "all", PATCHES) == ""
    return out / "all"


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.number)
def test_each_patch_applies_with_no_more_than_it_names(patch, base, out):
    before = [other for other in PATCHES if other.number in patch.depends]
    assert patched(base, out / patch.number, [*before, patch]) == ""


def test_the_whole_series_keeps_upstreams_style_and_passes_its_tests(all_applied, base, out):
    files = {file for patch in PATCHES for file in patch.files}
    assert style(all_applied, base, sorted(files)) == ""
    tests = [test for patch in PATCHES for test in patch.tests]
    assert failures(all_applied, tests, out / "tests.txt") == (), (out / "tests.txt").read_text()[-3000:]


def exports(tree: Path, folder: Path, *arguments: str) -> dict:
    """What tests/patched_exports.py finds with a copy of Ultralytics."""
    folder.mkdir()
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(tree), str(HERE)]),
        "PYTHONSAFEPATH": "1",
        "YOLO_CONFIG_DIR": str(folder),
    }
    command = [sys.executable, str(HERE / "tests" / "patched_exports.py"), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads((folder / "exports.json").read_text())


def test_exports_of_a_patched_copy(all_applied, base, out, shapes_data):
    arguments = (str(WEIGHTS), str(shapes_data), "--all")
    plain = exports(base, out / "plain", *arguments)
    with_series = exports(all_applied, out / "with-series", *arguments)
    assert with_series["fp32"] == plain["fp32"]
    assert with_series["library"] == plain["library"]
    assert plain["share"] < 0.95 < with_series["share"]


def test_the_one_for_the_quantizer_applies_and_its_tests_pass(tmp_path):
    installed = distribution("ai-edge-quantizer")
    tree = tmp_path / "tree"
    for file in installed.files:
        if file.parts[0] == "ai_edge_quantizer" and file.suffix == ".py":
            (tree / file).parent.mkdir(parents=True, exist_ok=True)
            (tree / file).write_bytes(file.locate().read_bytes())
    git(tree, "init", "-q")
    git(tree, "add", "-A", "-f")
    git(tree, "commit", "-q", "-m", installed.version)
    (patch,) = sorted(folder_of(QUANTIZER_SERIES).glob("*.patch"))
    git(tree, "am", "-q", str(patch))
    file = "ai_edge_quantizer/utils/calibration_utils_test.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", file, "-k", "ClipSilu"]
    environment = os.environ | {"PYTHONPATH": str(tree)}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "4 passed" in re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)


def a_release(folder: Path, files: dict[str, str]) -> Path:
    """A git repository with a release of these files."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "release")
    return folder


def test_a_patch_that_does_not_do_what_it_says_is_named(tmp_path):
    tests = "import code_\n\n\ndef test_old():\n    assert code_.value == 1\n"
    base = a_release(
        tmp_path / "base", {"code_.py": "value = 1\n", "tests/test_exports.py": tests, "tests/test_python.py": ""}
    )
    series = tmp_path / "series"

    def commit(message: str, code: str, test: str) -> None:
        (base / "code_.py").write_text(code)
        with (base / "tests" / "test_exports.py").open("a") as file:
            file.write(f"\n\ndef test_{message}():\n    assert {test}\n")
        git(base, "commit", "-q", "-a", "-m", message)

    commit("good", "value = 1\nother = 2\n", "code_.other == 2")
    commit("idle", "value = 1\nother = 3\n", "code_.value == 1")
    commit("wrong", "value = 1\nother =   4\n", "code_.other == 5")
    git(base, "format-patch", "-q", "-o", str(series), "main~3..main")
    git(base, "reset", "-q", "--hard", "main~3")
    for number, needs in (("0002", "0001"), ("0003", "0001, 0002")):
        (path,) = series.glob(f"{number}*")
        path.write_text(path.read_text().replace("\n---\n", f"\nDepends-on: {needs}\n---\n", 1))
    good, idle, wrong = examine(base, tmp_path, read_series(series)).values()
    assert good == Verdict("", "", "", (), ())
    assert idle == Verdict("", "", "", (), ("test_idle",))
    assert wrong.failed == ("test_wrong",)
    assert wrong.style == "code_.py is not formatted"
    assert [verdict.is_good for verdict in (good, idle, wrong)] == [True, False, False]
    (base / "code_.py").write_text("value = 7\n")
    git(base, "commit", "-q", "-a", "-m", "next release")
    verdicts = examine(base, tmp_path, read_series(series))
    assert "0001-good.patch: error: patch failed: code_.py:1" in table("next", verdicts)
    assert not any(verdict.is_good for verdict in verdicts.values())


def test_a_patch_says_what_it_needs_and_adds():
    patches = {patch.number: patch for patch in PATCHES}
    assert list(patches) == [f"{n:04d}" for n in range(1, len(PATCHES) + 1)]
    for patch in PATCHES:
        assert patch.tests
        assert set(patch.depends) <= {number for number in patches if number < patch.number}
        assert "yolo_edgequant" not in re.sub(r"^From: .*$", "", patch.path.read_text(), flags=re.MULTILINE)
        assert all(file.startswith(("ultralytics/", "tests/")) for file in patch.files)
    assert isinstance(UpstreamPatch.read(PATCHES[0].path), UpstreamPatch)
