"""INT8 exports of Ultralytics YOLO models that still detect. Importing this patches Ultralytics; `disable` undoes it.

Example:
    >>> import yolo_edgequant
    >>> from ultralytics import YOLO
    >>> YOLO("yolov8n.pt").export(format="tflite", quantize=8, data="coco128.yaml")  # doctest: +SKIP
    'yolov8n_full_integer_quant.tflite'
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ._version import __version__
from .describe import describe
from .errors import EdgeQuantError, MissingToolError, UnsupportedVersionError
from .options import ExportOptions, options
from .patches import FINETUNING, REGISTRY

__all__ = [
    "EdgeQuantError",
    "ExportOptions",
    "UnsupportedVersionError",
    "__version__",
    "describe",
    "disable",
    "enable",
    "finetune",
    "options",
    "patched",
    "swap_activation",
]


def enable(force: bool | None = None) -> None:
    """Patch Ultralytics, now or as its modules are imported. Twice is once.

    Where the installed version lacks what a patch needs, an export or training that needs the patch ends in one line,
    and everything else goes on.

    Args:
        force: try what lacks something all the same; None does so if ``YOLO_EDGEQUANT_FORCE`` is 1.

    Raises:
        MissingToolError: Ultralytics is not installed.
    """
    REGISTRY.enable(force)


def disable() -> None:
    """Put the very functions back that the patches replaced."""
    REGISTRY.disable()


@contextmanager
def patched(force: bool | None = None) -> Iterator[None]:
    """Patch Ultralytics for the duration of a ``with`` block; an outer state is kept.

    Blocks of several threads may overlap: the last to leave restores the state before the first.

    Args:
        force: as of :func:`enable`.

    Raises:
        MissingToolError: Ultralytics is not installed.
    """
    with REGISTRY.patched(force):
        yield


# these need torch, which importing this package must not
_LAZY = {"finetune": "finetuning", "swap_activation": "training.activations"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "finetune" and REGISTRY.enabled:
        REGISTRY.require(FINETUNING, "finetune()")
    return getattr(import_module(f".{_LAZY[name]}", __name__), name)


if find_spec("ultralytics") is not None:  # a device that only infers has none
    with suppress(MissingToolError):  # a folder of that name, which nobody installed
        enable()
