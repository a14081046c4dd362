"""What exports, training and the runtime need, beside what is installed; nothing of it is imported.

The versions that were tried stand in this package's own requirements, and Ultralytics' beside the patches.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from ._version import __version__
from .errors import EdgeQuantError, OptionError
from .files import atomic_write
from .machine import cpu_features
from .options import Choice
from .patches import FINETUNING, REGISTRY, TRAINING
from .targets.formats import PROFILES, Format, Profile, converter_gap, require_packages

#: Modules that run ``.tflite`` files, in the runtime's order.
_INTERPRETERS = ("ai_edge_litert", "tflite_runtime", "tensorflow")
#: tflite-runtime 2.14 ends in a SystemError with NumPy 2, and does not say so in its metadata.
_NUMPY_OF_TFLITE_RUNTIME = "<2"

_COMPILER = "edgetpu_compiler"
#: Distributions whose names are not their modules'.
_DISTRIBUTIONS = {"cv2": "opencv-python"}
#: Beyond what each format says that it needs: the module, and what to do if it is not there.
_OTHERS = {
    "ultralytics": "pip install ultralytics",
    "torch": "pip install torch",
    "numpy": "pip install numpy",
    "litert_converter": "pip install litert-converter",
    "tflite_runtime": "only where ai-edge-litert cannot be had: pip install tflite-runtime 'numpy<2'",
    "cv2": "only for 'yolo-edgequant run': pip install 'yolo-edgequant[run]'",
}
_COLORS = {"works": "green", "differs": "yellow", "unknown": "yellow", "missing": "default", "broken": "red"}


class State(Choice):
    """What is to be said of a package."""

    WORKS = "works"  # of a version that was tried
    DIFFERS = "differs"  # of another version, which may work as well
    UNKNOWN = "unknown"  # can be imported, and has no metadata that say its version
    MISSING = "missing"
    BROKEN = "broken"  # is there, and cannot be used


@dataclass(frozen=True)
class Row:
    """A package or a program.

    Attributes:
        name: of the distribution or program; of a patch that lacks something, its target.
        module: that is imported of it; empty for what is no package.
        version: that is installed.
        tested: versions that were tried, as in a requirement; empty if any will do.
        state: of it.
        advice: what to do, or what follows; empty if nothing.
    """

    name: str
    module: str
    version: str | None
    tested: str
    state: State
    advice: str

    @property
    def stops(self) -> bool:
        """True if what needs this cannot be had."""
        return self.state in {State.MISSING, State.BROKEN}


@dataclass(frozen=True)
class Purpose:
    """Something that this package is for.

    Attributes:
        name: of it; an export's is its format.
        possible: here.
        reason: why not, or what to know beforehand; empty if nothing.
    """

    name: str
    possible: bool
    reason: str


@dataclass(frozen=True)
class Report:
    """All that was looked at.

    Attributes:
        version: of this package.
        python, platform: versions.
        cpu: features that matter in INT8; empty where the system does not say.
        rows: packages and programs.
        purposes: what they allow.
    """

    version: str
    python: str
    platform: str
    cpu: tuple[str, ...]
    rows: tuple[Row, ...]
    purposes: tuple[Purpose, ...]

    def failing(self, formats: Sequence[str] = ()) -> list[Purpose]:
        """What was asked for and cannot be had.

        Args:
            formats: of exports; none for all those whose packages are installed, or else for the runtime.

        Raises:
            OptionError: an unknown format.
        """
        for name in formats:
            if name not in PROFILES:
                raise OptionError(f"--format {name!r} is not one of {', '.join(PROFILES)}")
        asked = formats or [name for name, profile in PROFILES.items() if self._is_meant(profile)]
        purposes = [purpose for purpose in self.purposes if purpose.name in asked]
        if not asked:
            purposes = [purpose for purpose in self.purposes if purpose.name.startswith("runtime")]
            if any(purpose.possible for purpose in purposes):  # a device has files of one kind
                return []
        return [purpose for purpose in purposes if not purpose.possible]

    def _is_meant(self, profile: Profile) -> bool:
        """True if something is installed that only exports of this format want: what runs files says nothing."""
        runs = {*_INTERPRETERS, "openvino"}
        sign = next(module for module in profile.packages if module not in runs)
        compiles = profile.format != Format.EDGETPU or not _row(self.rows, _COMPILER).stops
        return compiles and _row(self.rows, sign).state != State.MISSING


def examine() -> Report:
    """Look at what is installed."""
    tested = _tested()
    rows = (*_ultralytics(tested), *(_package(module, tested) for module in _modules()), _compiler())
    return Report(
        __version__,
        platform.python_version(),
        platform.platform(),
        cpu_features(),
        rows,
        (
            *(_export(profile, rows) for profile in PROFILES.values()),
            *(_training(name, rows) for name in (TRAINING, FINETUNING)),
            _runtime_tflite(rows),
            _runtime_openvino(rows),
        ),
    )


def tables(report: Report) -> Group:
    """A report for people."""
    packages = Table("package", "version", "tested", "state", "what to do")
    for row in report.rows:
        state = f"[{_COLORS[row.state]}]{row.state}[/]"
        packages.add_row(*map(escape, (row.name, row.version or "-", row.tested or "-")), state, escape(row.advice))
    purposes = Table("for", "possible", "why")
    for purpose in report.purposes:
        possible = "[green]yes[/]" if purpose.possible else "[red]no[/]"
        purposes.add_row(escape(purpose.name), possible, escape(purpose.reason))
    cpu = " ".join(report.cpu) or "features unknown"
    machine = f"yolo-edgequant {report.version}, Python {report.python}, {report.platform}, CPU: {cpu}"
    return Group(escape(machine), packages, purposes)


def save(report: Report, path: Path) -> None:
    """Write a report as JSON, its fields as named here.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(asdict(report), indent=1) + "\n")


def _ultralytics(tested: Mapping[str, str]) -> Iterator[Row]:
    """Ultralytics, and a row for each patch that lacks something in it."""
    row = _package("ultralytics", tested)
    lacking = {} if row.version is None else REGISTRY.problems
    if row.state == State.DIFFERS and not lacking:
        row = replace(row, advice=f"all that is needed is there; {row.advice}")
    yield row
    for patch, clause in lacking.items():
        lost = f"without it no {', '.join(patch.serves)}" if patch.serves else "nothing else is lost"
        advice = f"{clause}; {lost}; pip install 'ultralytics{REGISTRY.tested}'"
        yield Row(patch.target, "", None, "", State.MISSING, advice)


def _modules() -> list[str]:
    """The modules of a row each, without Ultralytics."""
    modules = dict.fromkeys(("torch", "numpy"))
    for profile in PROFILES.values():
        modules |= dict.fromkeys(profile.packages)
        if profile.is_tflite:
            modules |= {"litert_converter": None}
    return list(modules | dict.fromkeys(("tflite_runtime", "cv2")))


def _package(module: str, all_tested: Mapping[str, str]) -> Row:
    name, version = _installed(module)
    tested = all_tested.get(canonicalize_name(_DISTRIBUTIONS.get(module, module)), "")
    is_there = importlib.util.find_spec(module) is not None
    gap = converter_gap() if module in {"litert_torch", "litert_converter"} else None
    state, advice = State.WORKS, ""
    if version is None and not is_there:
        state, advice = State.MISSING, gap or _install(module)
    elif version is None:
        state, advice = State.UNKNOWN, f"{module} can be imported, and has no metadata"
    elif not is_there:
        state, advice = State.BROKEN, f"there is no module {module}: pip install --force-reinstall {name}"
    elif module == "tflite_runtime" and (numpy := _numpy_of_tflite_runtime()):
        state, advice = State.BROKEN, numpy
    elif not SpecifierSet(tested).contains(version, prereleases=True):
        age = "older" if _is_older(version, tested) else "newer"
        state, advice = State.DIFFERS, f"{age} than tested; if it fails: pip install '{name}{tested}'"
    return Row(name, module, version, tested, state, advice)


def _installed(module: str) -> tuple[str, str | None]:
    """The distribution that a module is of, and its version; None if there are no metadata."""
    name = _DISTRIBUTIONS.get(module, module.replace("_", "-"))
    for candidate in chain((name,), _variants(module)):
        try:
            return candidate, metadata.version(candidate)
        except metadata.PackageNotFoundError:
            continue
    return name, None


def _variants(module: str) -> Iterator[str]:
    """Other distributions that a module may be of, as ``opencv-python-headless``; finding them takes a moment."""
    if importlib.util.find_spec(module) is not None:
        yield from metadata.packages_distributions().get(module, ())


def _tested() -> dict[str, str]:
    """The versions of each distribution that this package requires; of those that it does not name, what others do."""
    required = {**_required("ultralytics"), **_required("litert-torch"), **_required("yolo-edgequant", extras=True)}
    texts = {name: ",".join(sorted({*map(str, specifiers)}, reverse=True)) for name, specifiers in required.items()}
    return {**texts, "ultralytics": REGISTRY.tested}


def _required(source: str, extras: bool = False) -> dict[str, SpecifierSet]:
    """The versions of each distribution that an installed one requires here, with all of its extras or with none."""
    try:
        lines, named = metadata.requires(source) or (), metadata.metadata(source).get_all("Provides-Extra") or ()
    except metadata.PackageNotFoundError:
        return {}
    required: dict[str, SpecifierSet] = {}
    for requirement in map(Requirement, lines):
        marker, name = requirement.marker, canonicalize_name(requirement.name)
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in (*(named if extras else ()), "")):
            required[name] = required.get(name, SpecifierSet()) & requirement.specifier
    return required


def _is_older(version: str, tested: str) -> bool:
    """True if a version is below every bound."""
    bounds = [Version(specifier.version.removesuffix(".*")) for specifier in SpecifierSet(tested)]
    return Version(version) < min(bounds)


def _install(module: str) -> str:
    if module in _OTHERS:
        return _OTHERS[module]
    extra = next(profile.extra for profile in PROFILES.values() if module in profile.packages)
    return f"pip install 'yolo-edgequant[{extra}]'"


def _numpy_of_tflite_runtime() -> str | None:
    """Why tflite-runtime cannot be used with the NumPy that is installed; None if it can."""
    numpy = _installed("numpy")[1]
    if numpy is None or SpecifierSet(_NUMPY_OF_TFLITE_RUNTIME).contains(numpy, prereleases=True):
        return None
    return f"fails with NumPy {numpy}: pip install 'numpy{_NUMPY_OF_TFLITE_RUNTIME}'"


def _compiler() -> Row:
    """The Edge TPU's compiler, on PATH or where Ultralytics keeps one; asking Ultralytics would import torch."""
    settings = os.environ.get("YOLO_CONFIG_DIR") or os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    folders = (Path(settings).expanduser(), Path(settings).expanduser() / "Ultralytics")  # by the release
    kept = (path for folder in folders for path in (folder / "edgetpu-compiler").rglob(_COMPILER))
    if shutil.which(_COMPILER) or any(path.is_file() for path in kept):
        return Row(_COMPILER, "", None, "", State.WORKS, "")
    advice = "only for format='edgetpu', on Linux x86-64: https://coral.ai/docs/edgetpu/compiler"
    return Row(_COMPILER, "", None, "", State.MISSING, advice)


def _row(rows: Sequence[Row], name: str) -> Row:
    return next(row for row in rows if name in {row.module, row.name})


def _export(profile: Profile, rows: Sequence[Row]) -> Purpose:
    name = profile.format.value
    needs = ["ultralytics", "torch", *profile.packages]
    if profile.is_tflite:
        needs.append("litert_converter")
    if profile.format == Format.EDGETPU:
        needs.append(_COMPILER)
    try:
        REGISTRY.require(name, f"format={name!r}")
        require_packages(profile)
    except EdgeQuantError as error:
        return Purpose(name, False, str(error))
    return _purpose(name, needs, rows)


def _training(name: str, rows: Sequence[Row]) -> Purpose:
    try:
        REGISTRY.require(name, name)
    except EdgeQuantError as error:
        return Purpose(name, False, str(error))
    return _purpose(name, ["ultralytics", "torch"], rows)


def _runtime_tflite(rows: Sequence[Row]) -> Purpose:
    """With the first interpreter that is there, which the runtime takes."""
    name = "runtime, .tflite"
    there = [row for module in _INTERPRETERS for row in [_row(rows, module)] if importlib.util.find_spec(module)]
    if not there:
        return Purpose(name, False, "no interpreter: pip install 'yolo-edgequant[runtime]'")
    return _purpose(name, [there[0].module, "numpy"], rows)


def _runtime_openvino(rows: Sequence[Row]) -> Purpose:
    return _purpose("runtime, OpenVINO", ["openvino", "numpy"], rows)


def _purpose(name: str, needs: Sequence[str], rows: Sequence[Row]) -> Purpose:
    """What the states of those rows make of a purpose."""
    needed = [_row(rows, need) for need in needs]
    if stopping := next((row for row in needed if row.stops), None):
        return Purpose(name, False, f"{stopping.name} is {stopping.state}: {stopping.advice}")
    untested = [f"{row.name} {row.version or ''}".strip() for row in needed if row.state != State.WORKS]
    return Purpose(name, True, f"not tested with {' and '.join(untested)}" if untested else "")
