"""Google's compiler for the Edge TPU, where it is installed, and what it says."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from ..errors import CompilerError, MissingToolError
from ..files import atomic_write
from .compiled import Compiled, Fallback, run

_PROGRAM = "edgetpu_compiler"
_MAPPED = "Mapped to Edge TPU"
_ROW = re.compile(r"^([A-Z][A-Z0-9_]+)\s+(\d+)\s+(\S[^\n]*?)\s*$", re.MULTILINE)
_SIZE = re.compile(r"^(On-chip|Off-chip) memory ([a-z ]+) model parameters: ([\d.]+)([KMG]?i?B)\s*$", re.MULTILINE)
_SUBGRAPHS = re.compile(r"^Number of Edge TPU subgraphs: (\d+)", re.MULTILINE)
_VERSION = re.compile(r"^Edge TPU Compiler version ([\d.]+)", re.MULTILINE)
_FACTORS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def find() -> Path:
    """The compiler, on PATH or where Ultralytics keeps the one that it fetched.

    Raises:
        MissingToolError: there is none.
    """
    if program := shutil.which(_PROGRAM):
        return Path(program)
    try:
        from ..upstream.models import edgetpu_compiler
    except ImportError:
        kept = None
    else:
        kept = edgetpu_compiler()
    if kept is None:
        raise MissingToolError(
            f"{_PROGRAM} is not on PATH and not in Ultralytics' folder; see https://coral.ai/docs/edgetpu/compiler"
        )
    return kept


def compile_file(path: Path, keep: Path | None = None) -> Compiled:
    """Compile a ``.tflite`` file for the Edge TPU.

    Args:
        path: of the file.
        keep: folder for the compiled file; it is thrown away without one.

    Raises:
        MissingToolError: there is no compiler.
        CompilerError: it failed, or says nothing that is understood here.
    """
    program = find()
    with tempfile.TemporaryDirectory() as folder:
        log = run([program, "--show_operations", "--out_dir", folder, path], _PROGRAM)
        written = sorted(Path(folder).glob("*_edgetpu.tflite"))
        logs = sorted(Path(folder).glob("*_edgetpu.log"))
        kept = None
        if keep is not None and written:
            kept = keep / written[0].name
            with atomic_write(kept) as temporary:
                shutil.copyfile(written[0], temporary)
        return parse(log if _ROW.search(log) or not logs else f"{log}\n{logs[0].read_text()}", kept)


def parse(log: str, kept: Path | None = None) -> Compiled:
    """What the compiler printed, with its table of operators.

    Raises:
        CompilerError: there is no such table.
    """
    rows = [(kind, int(count), status) for kind, count, status in _ROW.findall(log)]
    if not rows:
        line = next((line for line in log.splitlines() if "rror" in line or "ompilation failed" in line), "no table")
        raise CompilerError(f"{_PROGRAM} compiled nothing: {' '.join(line.split())[:300]}")
    version, subgraphs = _VERSION.search(log), _SUBGRAPHS.search(log)
    memory = {
        f"{place.lower()} {what}": round(float(number) * _FACTORS.get(unit, 1))
        for place, what, number, unit in _SIZE.findall(log)
    }
    return Compiled(
        compiler=" ".join([_PROGRAM, *([version[1]] if version else [])]),
        device="Edge TPU",
        accelerator=sum(count for _, count, status in rows if status == _MAPPED),
        cpu=sum(count for _, count, status in rows if status != _MAPPED),
        subgraphs=int(subgraphs[1]) if subgraphs else None,
        memory=memory,
        fallbacks=tuple(Fallback(kind, status, count) for kind, count, status in rows if status != _MAPPED),
        file=kept,
    )
