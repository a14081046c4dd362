"""Child processes that run our own modules, and the cores and the memory that they and this process use."""

from __future__ import annotations

import ctypes
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


def return_memory() -> None:
    """Give the system back what this process has freed, where the C library is glibc, which keeps it otherwise.

    glibc keeps up to 64 MB of freed memory at the end of its heap, and all that lies between pieces in use. Other C
    libraries decide for themselves; for them this does nothing.
    """
    try:
        trim = ctypes.CDLL("libc.so.6").malloc_trim
    except (OSError, AttributeError):
        return
    trim(0)
