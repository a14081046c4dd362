"""Child processes that run our own modules, and the cores that they and this process may use."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def environment(**extra: str) -> dict[str, str]:
    """This process' environment and import path, for a Python child that starts in another folder."""
    path = os.pathsep.join(str(Path(entry).resolve()) for entry in sys.path)
    return {**os.environ, "PYTHONPATH": path, **extra}


def usable_threads() -> int:
    """CPU cores that this process may use: in a container fewer than there are, and no more than ``OMP_NUM_THREADS``.

    Threads that wait for each other on a core that another process holds are slow: beside another job on two cores, a
    training took 450 s with two threads and 104 s with one.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, int(limit)) if limit.isdigit() and int(limit) > 0 else cores
