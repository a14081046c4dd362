"""The one logger: a child of Ultralytics' own, so that it is shown where that is, and as quiet."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

LOGGER = logging.getLogger("ultralytics.yolo_edgequant")


@contextmanager
def quiet(wanted: bool = True) -> Iterator[None]:
    """Show warnings and errors only, inside; with `wanted` False do nothing."""
    before = LOGGER.level
    if wanted:
        LOGGER.setLevel(logging.WARNING)
    try:
        yield
    finally:
        LOGGER.setLevel(before)
