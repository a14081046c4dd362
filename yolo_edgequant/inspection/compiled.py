"""What a compiler said of a file, of one type for all compilers, and how they are run."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import CompilerError

_LIMIT = 1800  # seconds that a compiler may take


@dataclass(frozen=True)
class Fallback:
    """An operator that a compiler leaves to the CPU, and why; several of a kind with one reason count together."""

    kind: str
    reason: str
    count: int


@dataclass(frozen=True)
class Heavy:
    """A kind of operator, and its share of the time that is estimated or was taken, 0 to 1."""

    kind: str
    share: float


@dataclass(frozen=True)
class Compiled:
    """What a compiler said.

    Attributes:
        compiler: its name and version.
        device: that it compiled for.
        accelerator, cpu: operators that run there, as the compiler counts them after joining and splitting some.
        subgraphs: pieces on the accelerator; None if it does not say.
        cycles: of the accelerator for an image, by the compiler's estimate; None without one.
        per_second: images a second, by that estimate; None without one.
        memory: bytes, by the compiler's words for it.
        settings: that it took.
        precisions: operators by the type that they compute in; empty if it does not say.
        fallbacks: operators on the CPU.
        heaviest: kinds of operators by their share of the time, the largest first.
        file: that it wrote, where it was kept.
    """

    compiler: str
    device: str
    accelerator: int
    cpu: int
    subgraphs: int | None = None
    cycles: float | None = None
    per_second: float | None = None
    memory: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    precisions: Mapping[str, int] = field(default_factory=dict)
    fallbacks: tuple[Fallback, ...] = ()
    heaviest: tuple[Heavy, ...] = ()
    file: Path | None = None

    @property
    def share(self) -> float:
        """The share of the operators that run on the accelerator, 0 to 1."""
        return self.accelerator / max(self.accelerator + self.cpu, 1)


def run(command: Sequence[str | Path], name: str) -> str:
    """What a compiler prints.

    Raises:
        CompilerError: it failed, or took more than half an hour.
    """
    try:
        done = subprocess.run(
            [str(part) for part in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            timeout=_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CompilerError(f"{name} took more than {_LIMIT} s; compile the file by hand") from None
    except OSError as error:
        raise CompilerError(f"{name} cannot be run: {error.strerror}") from error
    text = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
        reason = next((line for line in reversed(lines) if "rror" in line), lines[-1] if lines else "it said nothing")
        raise CompilerError(f"{name} failed with status {done.returncode}: {reason[:300]}")
    return text
