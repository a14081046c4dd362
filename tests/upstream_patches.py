"""Do the patches in contrib/ultralytics apply to a release of Ultralytics, and does each do what it says? A table.

Usage:
    python -m tests.upstream_patches [VERSION] [--out FOLDER] [--series FOLDER]

Without a version it is the newest that this library was tried with; `latest` is the newest on the package index. The
release's source distribution is fetched with pip and made a git repository in FOLDER. Each patch goes on it alone,
behind those that its message names in a line "Depends-on:", and all of them go on it in order, with `git am`. There the
release's own formatter and linter look at the changed files, and the patch's tests run: with it, when they have to
pass, and without it, when each has to fail. The exit status is 1 if one does not.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from packaging.specifiers import SpecifierSet

from yolo_edgequant.patches import TESTED
from yolo_edgequant.series import SERIES, folder_of

from .versions import newest, unpack_source

BASE = max(SpecifierSet(TESTED), key=lambda bound: bound.operator == "<=").version
_AUTHOR = ("-c", "user.name=yolo_edgequant", "-c", "user.email=yolo_edgequant@localhost", "-c", "commit.gpgsign=false")
_TESTS = ("tests/test_exports.py", "tests/test_python.py")


@dataclass(frozen=True)
class UpstreamPatch:
    """A file of ``git format-patch``.

    Attributes:
        path: of the file.
        depends: the numbers of the patches that it goes on top of.
        tests: the test functions that it adds.
        files: those that it changes.
    """

    path: Path
    depends: tuple[str, ...]
    tests: tuple[str, ...]
    files: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> UpstreamPatch:
        """Read what a patch says of itself."""
        text = path.read_text()
        (depends,) = re.findall(r"^Depends-on: (.*)$", text, re.MULTILINE) or [""]
        tests = re.findall(r"^\+def (test_\w+)\(", text, re.MULTILINE)
        files = re.findall(r"^\+\+\+ b/(.*)$", text, re.MULTILINE)
        return cls(path, tuple(re.findall(r"\d{4}", depends)), tuple(tests), tuple(dict.fromkeys(files)))

    @property
    def number(self) -> str:
        """Its place in the series, four digits."""
        return self.path.name[:4]


@dataclass(frozen=True)
class Verdict:
    """What came of a patch; None where it did not come to that.

    Attributes:
        alone: why ``git am`` refused it on the release with no more than it depends on; empty if it did not.
        series: the same, behind all of those before it.
        style: what the formatter or the linter said that it did not say before.
        failed: its tests that failed with it.
        unshaken: its tests that did not fail without it.
    """

    alone: str | None = None
    series: str | None = None
    style: str | None = None
    failed: tuple[str, ...] | None = None
    unshaken: tuple[str, ...] | None = None

    @property
    def is_good(self) -> bool:
        """Nothing of what was tried went wrong."""
        return not any((self.alone, self.series, self.style, self.failed, self.unshaken))


def git(folder: Path, *arguments: str) -> str:
    """What git prints in a folder.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    return subprocess.run(
        ["git", *_AUTHOR, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


def source(version: str, out: Path) -> Path:
    """A git repository with a release's source distribution as its only commit; fetched if it is not there."""
    folder = out / "sources" / version
    if not (folder / ".git").is_dir():
        unpack_source(version, folder)
        git(folder, "init", "-q", "-b", "main")
        git(folder, "add", "-A", "-f")
        git(folder, "commit", "-q", "-m", f"ultralytics {version}")
    return folder


def patched(base: Path, folder: Path, patches: Sequence[UpstreamPatch]) -> str:
    """Make a copy of a release with patches on it; why the first that does not apply does not, or nothing.

    Args:
        base: from :func:`source`.
        folder: to make anew.
        patches: in order.
    """
    shutil.rmtree(folder, ignore_errors=True)
    git(base, "worktree", "prune")
    git(base, "worktree", "add", "-q", "--detach", "-f", str(folder), "main")
    for patch in patches:
        try:
            git(folder, "am", "-q", str(patch.path))
        except subprocess.CalledProcessError as error:
            git(folder, "am", "--abort")
            return f"{patch.path.name}: {(error.stderr or error.stdout).strip().splitlines()[0]}"
    return ""


def style(folder: Path, base: Path, files: Sequence[str]) -> str:
    """What the release's formatter and linter say of files that they did not say before."""

    def ruff(where: Path, *arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "ruff", *arguments, "--no-cache"]
        return subprocess.run(command, cwd=where, capture_output=True, text=True, check=False)

    def complaints(where: Path) -> Counter[str]:
        said = ruff(where, "check", "--output-format=json", *(file for file in files if (where / file).exists()))
        found = json.loads(said.stdout)
        return Counter(f"{Path(one['filename']).relative_to(where)}: {one['code']} {one['message']}" for one in found)

    unformatted = [f"{file} is not formatted" for file in files if ruff(folder, "format", "--check", file).returncode]
    return "; ".join([*unformatted, *(complaints(folder) - complaints(base)).elements()])


def failures(folder: Path, tests: Sequence[str], log: Path) -> tuple[str, ...]:
    """Run test functions of a copy of Ultralytics; those of which a case failed, or that could not be run."""
    environment = os.environ | {
        "PYTHONPATH": str(folder),
        "YOLO_CONFIG_DIR": str(log.parent),
        "YOLO_AUTOINSTALL": "False",
        "YOLO_OFFLINE": "True",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-rfEs", "--noconftest", "-p", "no:cacheprovider", *_TESTS]
    done = subprocess.run(
        [*command, "-k", " or ".join(tests)], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    log.write_text(done.stdout + done.stderr)
    if done.returncode not in {0, 1}:
        return tuple(tests)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    lines = [line for line in plain.splitlines() if line.startswith(("FAILED", "ERROR", "SKIPPED"))]
    return tuple(test for test in tests if any(re.search(rf"\b{test}\b", line) for line in lines))


def examine(base: Path, out: Path, series: Sequence[UpstreamPatch]) -> dict[str, Verdict]:
    """Try each patch; a verdict by the file's name."""
    by_number = {patch.number: patch for patch in series}
    verdicts = {}
    for patch in series:
        before = [by_number[number] for number in patch.depends]
        folder, log = out / "patched" / patch.number, out / f"{patch.number}.txt"
        verdict = Verdict(alone=patched(base, folder, [*before, patch]))
        if not verdict.alone:
            verdict = replace(
                verdict,
                style=style(folder, base, patch.files),
                failed=failures(folder, patch.tests, log),
                unshaken=unshaken(base, folder, before, patch),
            )
        verdicts[patch.path.name] = verdict
        print(f"{patch.path.name}: {'good' if verdict.is_good else verdict}", flush=True)
    refused = patched(base, out / "patched" / "series", series)
    for name, verdict in verdicts.items():
        verdicts[name] = replace(verdict, series=refused if refused.startswith(name) else "")
    return verdicts


def unshaken(base: Path, folder: Path, before: Sequence[UpstreamPatch], patch: UpstreamPatch) -> tuple[str, ...]:
    """The tests of a patch that pass although only its tests were applied."""
    patched(base, folder, before)
    git(folder, "apply", "--include=tests/*", str(patch.path))
    failed = failures(folder, patch.tests, folder.parent / f"{patch.number}-without.txt")
    return tuple(test for test in patch.tests if test not in failed)


def table(version: str, verdicts: dict[str, Verdict]) -> str:
    """The verdicts in Markdown."""
    lines = [f"| on {version} | alone | in the series | style | tests | tests without it |", "| --- |" + " --- |" * 5]

    def cell(wrong: str | tuple[str, ...] | None, good: str) -> str:
        return "-" if wrong is None else good if not wrong else wrong if isinstance(wrong, str) else ", ".join(wrong)

    for name, v in verdicts.items():
        cells = (cell(v.alone, "applies"), cell(v.series, "applies"), cell(v.style, "kept"), cell(v.failed, "pass"))
        lines.append(f"| {name} | {' | '.join(cells)} | {cell(v.unshaken, 'fail')} |")
    return "\n".join(lines)


def read_series(folder: Path) -> list[UpstreamPatch]:
    """The patches in a folder, in order."""
    return [UpstreamPatch.read(path) for path in sorted(folder.glob("*.patch"))]


def main() -> int:
    """Run the command that the module's description says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", nargs="?", default=BASE)
    parser.add_argument("--out", type=Path, default=Path("upstream"))
    parser.add_argument("--series", type=Path, default=folder_of(SERIES))
    options = parser.parse_args()
    version = newest() if options.version == "latest" else options.version
    out = options.out.resolve()
    verdicts = examine(source(version, out), out, read_series(options.series))
    (out / f"{version}.json").write_text(json.dumps({n: asdict(v) for n, v in verdicts.items()}, indent=1) + "\n")
    print(table(version, verdicts))
    return int(not all(verdict.is_good for verdict in verdicts.values()))


if __name__ == "__main__":
    sys.exit(main())
