import os
import re
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import tomllib
from packaging.requirements import Requirement

from yolo_edgequant.options import NAMES, choices
from yolo_edgequant.processes import environment
from yolo_edgequant.targets.formats import PROFILES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def marked(comment):
    """The lines of the one shell block that stands right behind a comment."""
    blocks = re.findall(rf"^<!-- {comment} -->\n```bash\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1, f"{len(blocks)} blocks behind <!-- {comment} -->"
    return blocks[0].splitlines()


def ci():
    """The commands of .ci/run, without those that set the shell up."""
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    return [shlex.split(line) for line in lines if line and not line.startswith(("#", "set ", "cd "))]


def test_the_test_command_is_what_ci_runs():
    assert marked("test command") == ["bash .ci/run"]
    assert (ROOT / ".ci" / "run").read_text().splitlines()[:3][-1] == "set -euo pipefail"


def test_ci_runs_ruff_first_and_then_every_tier():
    commands = [command for command in ci() if Path(command[0]).name in {"ruff", "pytest"}]
    programs = [Path(command[0]).name for command in commands]
    assert [command[1:] for command in commands[:2]] == [["check", "."], ["format", "--check", "."]]
    assert programs == ["ruff", "ruff", "pytest", "pytest", "pytest"]
    tiers = [command[command.index("-m") + 1] for command in commands[2:]]
    assert tiers == ["unit", "export or accuracy", "accuracy"]
    declared = [line.partition(":")[0] for line in PROJECT["tool"]["pytest"]["ini_options"]["markers"]]
    assert declared == ["unit", "export", "accuracy"]


def test_nothing_runs_beside_what_compares_times_and_memory():
    """All tests run, and those of the costs once, in a process of their own."""
    unit, most, costs = (command[1:] for command in ci() if Path(command[0]).name == "pytest")
    parallel = ["-n", "2", "--dist", "loadfile"]
    alone = "tests/accuracy/test_costs.py"
    assert unit == [*parallel, "-m", "unit"]
    assert most == [*parallel, "-m", "export or accuracy", f"--ignore={alone}"]
    assert costs == ["-m", "accuracy", alone]
    assert (ROOT / alone).is_file()


def requirements(extra):
    """What an extra installs, the extras that it names included."""
    for requirement in map(Requirement, PROJECT["project"]["optional-dependencies"][extra]):
        if requirement.name == PROJECT["project"]["name"]:
            for inner in requirement.extras:
                yield from requirements(inner)
        else:
            yield requirement.name


def extras_of(argument):
    """The extras in ``.[one,two]`` or ``name[one,two]``."""
    return re.fullmatch(r"(?:\.|yolo-edgequant)\[([\w,]+)\]", argument).group(1).split(",")


def test_the_demo_command_installs_what_the_demo_uses_and_runs_it():
    (line,) = marked("demo command")
    create, install, run = (shlex.split(part) for part in line.split("&&"))
    assert create == ["python3.11", "-m", "venv", ".venv"]
    assert install[:-1] == [".venv/bin/pip", "install", "-q", "-e"]
    assert run == [".venv/bin/yolo-edgequant", "demo"]
    assert PROJECT["project"]["scripts"] == {"yolo-edgequant": "yolo_edgequant.cli:main"}
    extras = extras_of(install[-1])
    installed = {name.replace("-", "_") for extra in extras for name in requirements(extra)}
    assert {"ultralytics", *PROFILES["tflite"].packages, *PROFILES["openvino"].packages} <= installed
    assert "tensorflow" not in installed


def test_every_extra_that_a_text_names_exists():
    named = {
        extra
        for text in TEXTS
        for names in re.findall(r"(?:yolo-edgequant|'\.)\[([\w,]+)\]", text.read_text())
        for extra in names.split(",")
    }
    assert {"litert", "openvino", "tensorflow", "runtime"} <= named
    assert named <= set(PROJECT["project"]["optional-dependencies"])


def test_the_export_calls_are_one_for_each_format():
    calls = re.findall(r'^(?:path = )?model\.export\(format="(\w+)", quantize=8, data=data\)', README, re.MULTILINE)
    assert sorted(calls) == sorted(PROFILES)


def test_the_table_of_options_is_the_options():
    table = README.partition("## Options\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"][2:]
    listed = {}
    for name, values, *_ in rows:
        for option, words in zip(re.findall(r"`(\w+)`", name), values.split(";"), strict=True):
            listed[option] = set(re.findall(r"`([\w-]+)`", words))
    assert set(listed) == NAMES
    assert listed.pop("min_retention") == set()
    assert listed == {option: {str(choice) for choice in choices(option)} for option in listed}


def slug(heading):
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.name)
def test_links_lead_to_files_and_headings_that_exist(text):
    for link in re.findall(r"\]\(([^)\s]+)\)", text.read_text()):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (text.parent / path).resolve() if path else text
        assert target.exists(), f"{text.name} links to {link}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert anchor in map(slug, headings), f"{text.name} links to {link}"


def test_every_document_is_linked_from_the_readme():
    linked = {link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", README)}
    assert {f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md")} <= linked


STUB = """
import os
with open(os.environ["IMPORTED"], "a") as file:
    print(__name__, file=file)
raise ModuleNotFoundError(f"No module named {__name__!r}", name=__name__)
"""


@pytest.mark.export
def test_the_demo_runs_from_end_to_end_without_tensorflow(tmp_path):
    """What the extras of the README's command do not install stands in front of the path, and cannot be imported."""
    log = tmp_path / "imported.txt"
    log.touch()
    missing = set(PROFILES["saved_model"].packages) - set(PROFILES["litert"].packages)
    assert "tensorflow" in missing
    for name in missing:
        (tmp_path / "absent" / name).mkdir(parents=True)
        (tmp_path / "absent" / name / "__init__.py").write_text(STUB)
    variables = environment(IMPORTED=str(log), COLUMNS="160", NO_COLOR="1")
    variables["PYTHONPATH"] = os.pathsep.join((str(tmp_path / "absent"), variables["PYTHONPATH"]))
    start = time.monotonic()
    arguments = ("demo", "--out", str(tmp_path / "demo"), "--calibration", "16", "--validation", "16")
    demo = subprocess.Popen(
        [sys.executable, "-c", "from yolo_edgequant.cli import main; main()", *arguments],
        cwd=tmp_path,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    complaints = []
    reader = threading.Thread(target=lambda: complaints.extend(demo.stderr))
    reader.start()
    lines, seconds = [], {}
    for line in demo.stdout:
        lines.append(line.rstrip("\n"))
        seconds.setdefault(line.partition(",")[0].strip(), time.monotonic() - start)
    reader.join()
    assert demo.wait() == 0, "".join([*lines[-5:], *complaints[-20:]])
    assert lines[0] == "drawing 16 images to calibrate on and 16 to validate on"
    assert seconds["pytorch"] < 60
    print(f"the first row after {seconds['pytorch']:.1f} s, all after {time.monotonic() - start:.0f} s")

    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    kinds = ["stock", "float", "int8"]
    expected = [["pytorch", "fp32"], *([name, kind] for name in ("tflite", "openvino") for kind in kinds)]
    assert [row[:2] for row in rows] == [*expected, *expected[1:]], "the figures, and those of the scores"
    rows = rows[: len(expected)]
    retention = {(row[0], row[1]): float(row[6].rstrip("%")) for row in rows}
    assert retention["pytorch", "fp32"] == 100
    assert retention["tflite", "float"] > 95
    assert retention["tflite", "float"] > retention["tflite", "stock"] + 5
    assert all(float(row[7].rstrip("%")) > 0 for row in rows[1:]), "each with its standard error"
    assert all(float(row[8]) > 0 for row in rows[1:]), "each is timed"
    assert lines[-1] == f"written: {tmp_path}/demo/bench.json and {tmp_path}/demo/bench.csv"
    assert set(log.read_text().split()) <= {"onnx"}, "others look for it, and do without"
