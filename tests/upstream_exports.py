"""Do Ultralytics' own export tests pass with the import as without it? One command, any release, a table.

Usage:
    python -m tests.upstream_exports [VERSION …] [--out FOLDER] [-k EXPRESSION]

Without a version it takes those in VERSIONS; `latest` is the newest on the package index. A release's wheel and the
tests in its source distribution are fetched with pip and unpacked into FOLDER. Its tests run twice in a child process
with the wheel in front of its path, once with ``pytest -p yolo_edgequant``, which is the import before all else.
Nothing else is fetched: the models are the release's own with random weights, and the small data sets that it takes
where none is given are drawn. Its settings are in FOLDER, too. The exit status is 1 if a test passed without the
import and not with it, or if a process broke off.

Releases of before OpenVINO's asynchronous queue was given up hang now and then on a dynamic file with two images, with
and without the import (ultralytics issue 25923): compare them with ``-k "(openvino or litert) and not (True-8-2 or
True-16-2)"``, or read such a difference as chance.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from .versions import HERE, newest, unpack_source, unpacked

VERSIONS = ("8.4.60", "8.4.121", "8.4.190")
EXPRESSION = "openvino or litert"
PROCESS = "the process"
UNFINISHED = "did not end"  # as tests/upstream_plugin.py says it
LIMIT = 120  # seconds that a test may take


@dataclass(frozen=True)
class Outcome:
    """What came of a test.

    Attributes:
        name: "passed", "failed" or "skipped".
        reason: one line; empty if it passed.
        seconds: that it took.
    """

    name: str
    reason: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Comparison:
    """What came of a release's tests, by name, without the import and with it."""

    without: dict[str, Outcome]
    patched: dict[str, Outcome]

    @cached_property
    def pairs(self) -> dict[str, tuple[Outcome, Outcome]]:
        """Both outcomes of each test."""
        absent = Outcome("absent", "did not run")
        names = dict.fromkeys((*self.without, *self.patched))
        return {name: (self.without.get(name, absent), self.patched.get(name, absent)) for name in names}

    @property
    def broken(self) -> list[str]:
        """The tests that pass without the import and not with it; a process that did not end well, whichever."""
        return [
            name for name, (one, other) in self.pairs.items() if name == PROCESS or one.name == "passed" != other.name
        ]


def upstream_tests(version: str, out: Path) -> Path:
    """The folder with the tests of a release's source distribution and their settings; fetched if it is not there."""
    folder = out / "sdists" / version
    if not (folder / "tests").is_dir():
        # without the package, which would be found before the wheel's
        unpack_source(version, folder, lambda path: path.parts[:1] in {("tests",), ("pyproject.toml",)})
    return folder


class Release:
    """A release of Ultralytics, its tests, and what they need.

    Args:
        version: of the release.
        out: where wheels and tests are kept; works in a folder of its own there, made anew.
    """

    def __init__(self, version: str, out: Path) -> None:
        self.folder = out / f"{version}-upstream"
        self._tests = upstream_tests(version, out)
        self._environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(unpacked(version, out)), str(HERE)]),
            "YOLO_CONFIG_DIR": str(self.folder),
            "YOLO_AUTOINSTALL": "False",
            "YOLO_OFFLINE": "True",
        }
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self._prepare()

    def run(self, expression: str, *plugins: str) -> dict[str, Outcome]:
        """Run the tests in a child process, a next one behind a test that hangs; what came of each, by name.

        Args:
            expression: pytest's ``-k``.
            plugins: modules to import first.
        """
        name = "-".join(("tests", *plugins))
        file = self.folder / f"{name}.jsonl"
        file.unlink(missing_ok=True)
        options = ["--slow", "-k", expression, "-p", "no:cacheprovider"]
        options += [option for plugin in (*plugins, "upstream_plugin") for option in ("-p", plugin)]
        options += ["-o", f"faulthandler_timeout={LIMIT}", "-o", "faulthandler_exit_on_timeout=true"]
        outcomes: dict[str, Outcome] = {}
        known, child = -1, None
        while len(outcomes) > known and (not outcomes or [*outcomes.values()][-1].reason == UNFINISHED):
            known = len(outcomes)
            test_file = str(self._tests / "tests" / "test_exports.py")
            child = self._child(name, "-m", "pytest", test_file, *options, UPSTREAM_OUTCOMES=str(file))
            outcomes = read(file)
        if child.returncode not in {0, 1, 5} or not outcomes:  # 1: some failed, 5: none is left
            outcomes[PROCESS] = Outcome("failed", f"exit status {child.returncode}, see {name}.txt")
        return outcomes

    def _prepare(self) -> None:
        shutil.copy(HERE / "tests" / "upstream_plugin.py", self.folder)  # python -m pytest looks in its folder
        # not as a module: the wheels of some releases have a package that is called tests, too
        self._child("prepare", str(HERE / "tests" / "upstream_files.py"), str(self.folder)).check_returncode()

    def _child(self, name: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
        with (self.folder / f"{name}.txt").open("a") as log:
            return subprocess.run(
                [sys.executable, *arguments],
                cwd=self.folder,
                env=self._environment | variables,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
            )


def read(file: Path) -> dict[str, Outcome]:
    """The outcomes in what tests/upstream_plugin.py has written."""
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return {line.pop("test"): Outcome(**line) for line in lines}


def table(results: dict[str, Comparison]) -> str:
    """The results in Markdown, a row a release, and below what did not pass with the import, by reason."""
    heads = ["passed", "failed", "skipped", "minutes"]
    lines = ["| without → with the import | " + " | ".join(heads) + " |", "| --- |" + " --- |" * len(heads)]
    for version, comparison in results.items():
        sides = (comparison.without.values(), comparison.patched.values())
        counts = [Counter(outcome.name for outcome in side) for side in sides]
        minutes = [f"{sum(outcome.seconds for outcome in side) / 60:.1f}" for side in sides]
        cells = [" → ".join(str(count[name]) for count in counts) for name in heads[:3]]
        lines.append(f"| {version} | " + " | ".join((*cells, " → ".join(minutes))) + " |")
    where: dict[str, list[str]] = {}
    for version, comparison in results.items():
        for name, (one, other) in comparison.pairs.items():
            if one.name != other.name or other.name == "failed":
                reason = f"{one.name} → {other.name}: {(other.reason or one.reason)[:400]}"
                where.setdefault(reason, []).append(f"{version} {name}")
    for reason, names in where.items():
        lines += ["", f"- {reason}", *(f"  - {name}" for name in names)]
    return "\n".join(lines)


def main() -> int:
    """Run the command that the module's description says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*")
    parser.add_argument("--out", type=Path, default=Path("versions"))
    parser.add_argument("-k", dest="expression", default=EXPRESSION)
    options = parser.parse_args()
    out = options.out.resolve()
    results = {}
    for version in [newest() if version == "latest" else version for version in options.versions or VERSIONS]:
        release = Release(version, out)
        results[version] = Comparison(
            release.run(options.expression), release.run(options.expression, "yolo_edgequant")
        )
        written = {v: asdict(comparison) for v, comparison in results.items()}
        (out / "upstream_exports.json").write_text(json.dumps(written, indent=1) + "\n")
    print(table(results))
    return int(any(comparison.broken for comparison in results.values()))


if __name__ == "__main__":
    sys.exit(main())
