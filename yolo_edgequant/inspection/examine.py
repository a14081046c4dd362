"""The inspection of a file: all parts of it, each of which stands for itself in its module."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ..errors import MissingToolError, OptionError
from ..targets.devices import Device, device
from . import edgetpu, vela
from .compiled import Compiled
from .findings import Finding, Level, findings
from .head import Head, Spread, spread
from .memory import Memory, memory
from .model import Model
from .noise import Measured, measure
from .placing import Placed, placed
from .reading import open_model
from .reference import reference

_EDGE_TPU = "edgetpu"  # in a format's name


@dataclass(frozen=True)
class Inspection:
    """What is known of a file.

    Attributes:
        model: that was read.
        head: its box decoding.
        spread: of scales in box decoding; None if nothing in it has a scale.
        memory: of it.
        findings: the worst first.
        placed: where operators run on a device; None without one.
        compiled: what compilers said; empty if none was asked.
        measured: on images; None without any.
        reference: the float model's name; None without one.
        beside: the other file, read; None without one.
    """

    model: Model
    head: Head
    spread: Spread | None
    memory: Memory
    findings: tuple[Finding, ...]
    placed: Placed | None = None
    compiled: tuple[Compiled, ...] = ()
    measured: Measured | None = None
    reference: str | None = None
    beside: Model | None = None

    @property
    def is_broken(self) -> bool:
        """True if the file does not find what its float model finds."""
        return any(finding.level == Level.ERROR for finding in self.findings)


def examine(
    path: Path,
    target: str | None = None,
    images: Path | None = None,
    count: int = 4,
    float_model: Path | None = None,
    beside: Path | None = None,
    compiling: bool = False,
    configuration: str | None = None,
    keep: Path | None = None,
) -> Inspection:
    """Inspect a file.

    Args:
        path: ``.tflite`` file, or an OpenVINO model's ``.xml`` or folder.
        target: name of a device, whose rules say where operators run.
        images: a picture, or a folder of such, to run it on.
        count: of pictures to run, at most.
        float_model: that it was made of: a ``.pt`` or a float file. Needs images.
        beside: another file, whose objects are drawn, too. Needs images.
        compiling: run the device's compiler, or OpenVINO's for its models.
        configuration: of an Ethos-U, as vela names it; None for the device's.
        keep: folder for compiled files.

    Raises:
        OptionError: an unknown target, or options that need others.
        InferenceError, UnsupportedModelError: a file is missing, or cannot be read.
        MissingToolError, CompilerError: a compiler is not there, or failed.
    """
    if (float_model or beside) and images is None:
        raise OptionError("--float and --beside compare files on images; give some with --images DIR")
    profile = None if target is None else device(target)
    model = open_model(path)
    other = None if beside is None else open_model(beside)
    head = Head.of(model)
    compiled = _compile(model, profile, configuration, keep) if compiling else ()
    measured = None
    if images is not None:
        with tempfile.TemporaryDirectory() as folder:
            exact = None if float_model is None else reference(float_model, model, Path(folder))
            measured = measure(model.path, exact, None if other is None else other.path, images, count)
    return Inspection(
        model,
        head,
        spread(model, head),
        memory(model),
        tuple(findings(model, head)),
        None if profile is None else placed(model, profile),
        compiled,
        measured,
        None if float_model is None else float_model.name,
        other,
    )


def _compile(
    model: Model, profile: Device | None, configuration: str | None, keep: Path | None
) -> tuple[Compiled, ...]:
    """Ask the compiler that makes files for a device; for OpenVINO's models its plugins.

    Raises:
        OptionError: there is no compiler for that device here.
    """
    if model.family == "openvino":
        if find_spec("openvino") is None:
            raise MissingToolError("OpenVINO is not installed; install it with: pip install openvino")
        from .openvino_runs import compile_model

        return tuple(compile_model(model.path))
    name = configuration or vela.CONFIGURATIONS.get(profile.name if profile else "")
    if name is not None:
        return (vela.compile_file(model.path, name, keep),)
    if profile is not None and any(_EDGE_TPU in format for format in profile.formats):
        return (edgetpu.compile_file(model.path, keep),)
    known = ", ".join([*vela.CONFIGURATIONS, "coral-edgetpu"])
    raise OptionError(
        f"--compile has no compiler for {'no target' if profile is None else f'target {profile.name}'}: give --target "
        f"({known}) or --accelerator-config, or an OpenVINO model"
    )
