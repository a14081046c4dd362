"""Arm's compiler for Ethos-U, and what it says: the only compiler for an NPU that runs anywhere."""

from __future__ import annotations

import csv
import re
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

from ..errors import CompilerError, MissingToolError
from ..files import atomic_write
from .compiled import Compiled, Fallback, Heavy, run

#: Configurations of the accelerator, by target.
CONFIGURATIONS = {"nxp-imx93": "ethos-u65-256"}

_COUNT = re.compile(r"^(CPU|NPU) operators = (\d+)", re.MULTILINE)
_FALLBACKS = (
    # vela 5: Warning (supported operators) operator: KIND, ofm: 'NAME' / Reason: ...
    re.compile(r"^Warning \([^)]*\) operator: (?P<kind>\w+),[^\n]*\n\s*Reason: (?P<reason>[^\n]+)", re.MULTILINE),
    # vela 3 and 4: Warning: Unsupported TensorFlow Lite semantics for KIND 'NAME'. Placing on CPU instead /  - ...
    re.compile(
        r"^Warning: (?:Unsupported TensorFlow Lite semantics for )?(?P<kind>[A-Z0-9_]+) '[^\n]*Placing on CPU[^\n]*\n"
        r"\s*- (?P<reason>[^\n]+(?:\n[ \t]+[^\n]+)*)",
        re.MULTILINE,
    ),
)
_NAME = re.compile(r"\s*\([^()]*\)\s*$")  # of a tensor, behind a reason
_MEMORY = ("sram_memory_used", "dram_memory_used", "on_chip_flash_memory_used", "off_chip_flash_memory_used")


def find() -> Path:
    """The program ``vela``, on PATH or beside this Python.

    Raises:
        MissingToolError: there is none.
    """
    program = shutil.which("vela")
    beside = Path(sys.executable).with_name("vela")
    if program is None and not beside.is_file():
        raise MissingToolError("vela is not on PATH; install it with: pip install 'yolo-edgequant[ethos-u]'")
    return Path(program) if program else beside


def compile_file(path: Path, configuration: str, keep: Path | None = None) -> Compiled:
    """Compile a ``.tflite`` file for an Ethos-U, with the system configuration and memory mode that vela takes.

    Args:
        path: of the file.
        configuration: as vela names it, for example ``ethos-u65-256``.
        keep: folder for the compiled file; it is thrown away without one.

    Raises:
        MissingToolError: there is no vela.
        CompilerError: vela failed, or says nothing that is understood here.
    """
    program = find()
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["--accelerator-config", configuration, "--show-cpu-operations", "--verbose-performance"]
        log = run([program, path, *arguments, "--output-dir", folder], "vela")
        version = run([program, "--version"], "vela").split()
        summaries, layers = sorted(Path(folder).glob("*_summary_*.csv")), sorted(Path(folder).glob("*per-layer.csv"))
        compiled = sorted(Path(folder).glob("*_vela.tflite"))
        if len(summaries) != 1 or not compiled:
            raise CompilerError("vela wrote no summary and no file; compile the file by hand to see why")
        kept = None
        if keep is not None:
            kept = keep / compiled[0].name
            with atomic_write(kept) as temporary:
                shutil.copyfile(compiled[0], temporary)
        return parse(
            log,
            summaries[0].read_text(),
            layers[0].read_text() if layers else "",
            " ".join(["vela", *version[-1:]]),
            configuration,
            kept,
        )


def parse(log: str, summary: str, layers: str, compiler: str, configuration: str, kept: Path | None = None) -> Compiled:
    """What vela printed, and wrote into its two tables.

    Raises:
        CompilerError: it is not understood.
    """
    counts = {place: int(count) for place, count in _COUNT.findall(log)}
    rows = list(csv.DictReader(summary.splitlines()))
    try:
        row = rows[0]
        cycles, per_second = float(row["cycles_total"]), float(row["inferences_per_second"])
        memory = {name: round(1024 * float(row[name])) for name in _MEMORY if float(row[name]) > 0}
        settings = {"system": row["system_config"], "memory mode": row["memory_mode"]}
        accelerator, cpu = counts["NPU"], counts["CPU"]
    except (IndexError, KeyError, ValueError) as error:
        raise CompilerError(f"what {compiler} wrote is not understood: {error!r} is missing") from error
    reasons: Counter[tuple[str, str]] = Counter()
    for pattern in _FALLBACKS:
        for match in pattern.finditer(log):
            first, *more = match["reason"].splitlines()
            reason = more[-1] if more and first.rstrip().endswith(":") else first  # a list of what it can, then what is
            reasons[match["kind"], " ".join(_NAME.sub("", reason).split())[:200]] += 1
    fallbacks = tuple(Fallback(kind, reason, count) for (kind, reason), count in reasons.most_common())
    return Compiled(
        compiler=compiler,
        device=configuration,
        accelerator=accelerator,
        cpu=cpu,
        cycles=cycles,
        per_second=per_second,
        memory=memory,
        settings=settings,
        fallbacks=fallbacks,
        heaviest=_heaviest(layers),
        file=kept,
    )


def _heaviest(layers: str) -> tuple[Heavy, ...]:
    """Kinds of operators by cycles. The column of the kind is named otherwise in vela 4 and 5."""
    cycles: Counter[str] = Counter()
    for row in csv.DictReader(layers.splitlines()):
        kind = row.get("Original Operator") or row.get("TFLite_operator") or "?"
        try:
            cycles[kind] += round(float(row.get("Op Cycles") or 0))
        except ValueError:
            continue
    whole = sum(cycles.values())
    return tuple(Heavy(kind, count / whole) for kind, count in cycles.most_common(5) if count) if whole else ()
