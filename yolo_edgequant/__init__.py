"""INT8 exports of Ultralytics YOLO models that still detect. Importing this patches Ultralytics; `disable` undoes it.

Example:
    >>> import yolo_edgequant
    >>> from ultralytics import YOLO
    >>> YOLO("yolov8n.pt").export(format="tflite", quantize=8, data="coco128.yaml")  # doctest: +SKIP
    'yolov8n_full_integer_quant.tflite'
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ._version import __version__
from .describe import describe
from .errors import EdgeQuantError, UnsupportedVersionError
from .log import LOGGER
from .options import ExportOptions, options
from .patches import REFUSALS, REGISTRY

__all__ = [
    "EdgeQuantError",
    "ExportOptions",
    "__version__",
    "describe",
    "disable",
    "enable",
    "finetune",
    "options",
    "patched",
    "swap_activation",
]


def enable(force: bool = False) -> None:
    """Patch Ultralytics, now or as its modules are imported. Twice is once.

    Args:
        force: a version that the patches were not tested with, too.

    Raises:
        MissingToolError: Ultralytics is not installed.
        UnsupportedVersionError: its version is outside the range that a patch was tested with, or lacks a target.
    """
    REFUSALS.disable()
    try:
        REGISTRY.enable(force)
    except UnsupportedVersionError:
        REFUSALS.enable()
        raise


def disable() -> None:
    """Put the very functions back that the patches replaced."""
    REGISTRY.disable()
    REFUSALS.disable()


@contextmanager
def patched(force: bool = False) -> Iterator[None]:
    """Patch Ultralytics for the duration of a ``with`` block; an outer state is kept.

    Blocks of several threads may overlap: the last to leave restores the state before the first.

    Raises:
        MissingToolError, UnsupportedVersionError: see :func:`enable`.
    """
    refused = REFUSALS.enabled
    REFUSALS.disable()
    try:
        with REGISTRY.patched(force):
            yield
    finally:
        if refused:
            REFUSALS.enable()


# these need torch, which importing this package must not
_LAZY = {"finetune": "finetuning", "swap_activation": "training.activations"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_LAZY[name]}", __name__), name)


def _enable_where_possible() -> None:
    """Patch the Ultralytics that is there; one that the patches were not tested with is left as it is, with a notice.

    The runtime on a device has none, and works beside any.
    """
    try:
        enable(force=os.environ.get("YOLO_EDGEQUANT_FORCE") == "1")
    except UnsupportedVersionError as error:
        LOGGER.warning(f"Ultralytics is left unpatched: {error}")


if find_spec("ultralytics") is not None:
    _enable_where_possible()
