"""Child processes that run our own modules."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def environment(**extra: str) -> dict[str, str]:
    """This process' environment and import path, for a Python child that starts in another folder."""
    path = os.pathsep.join(str(Path(entry).resolve()) for entry in sys.path)
    return {**os.environ, "PYTHONPATH": path, **extra}
