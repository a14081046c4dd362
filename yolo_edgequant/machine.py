"""What figures were measured with: this machine, its software and the day, to be said beside them."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from ._version import __version__

_CPU = Path("/proc/cpuinfo")
#: What makes INT8 arithmetic fast, or gives it another result.
_FEATURES = ("avx2", "avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")
#: Packages that a file and its figures depend on.
_PACKAGES = (
    *("ultralytics", "torch", "numpy", "litert-torch", "ai-edge-litert", "ai-edge-quantizer"),
    *("tensorflow", "openvino", "nncf"),
)
_CHECKOUT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Facts:
    """What a measurement was made with.

    Attributes:
        date: of its start, UTC, as 2026-01-31.
        version: of this package.
        commit: of the checkout that it runs from, ``-dirty`` behind it if the package differs; None elsewhere.
        python: version.
        packages: versions of those that are installed and matter, by name.
        cpu: its name; empty where the system does not say.
        features: as :func:`cpu_features` has them.
        cores: that there are; None where the system does not say.
        load: mean number of processes that wanted one in the minute before, others' among them; None likewise.
    """

    date: str
    version: str
    commit: str | None
    python: str
    packages: Mapping[str, str]
    cpu: str
    features: tuple[str, ...]
    cores: int | None = None
    load: float | None = None


def facts() -> Facts:
    """Of this machine, now."""
    return Facts(
        datetime.now(timezone.utc).date().isoformat(),
        __version__,
        _commit(),
        platform.python_version(),
        {name: version for name in _PACKAGES if (version := _version(name)) is not None},
        _of_cpu("model name|Hardware"),
        cpu_features(),
        os.cpu_count(),
        round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
    )


def cpu_features() -> tuple[str, ...]:
    """The CPU's features that matter in INT8; empty where the system does not say."""
    there = _of_cpu("flags|Features").split()
    return tuple(feature for feature in _FEATURES if feature in there)


def _of_cpu(names: str) -> str:
    if not _CPU.is_file():
        return ""
    line = re.search(rf"^(?:{names})\s*:(.*)$", _CPU.read_text(), re.MULTILINE)
    return line.group(1).strip() if line else ""


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """None if the package is installed elsewhere, though maybe inside a checkout of something else."""
    if not (_CHECKOUT / ".git").exists():
        return None
    try:
        commit = _git("rev-parse", "--short=7", "HEAD")
        changed = _git("status", "--porcelain", "--", Path(__file__).parent.name)
    except (OSError, subprocess.CalledProcessError):
        return None  # no git here, or it does not trust the folder
    return f"{commit}-dirty" if changed else commit


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(_CHECKOUT), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
