"""INT8 exports of Ultralytics YOLO models that still detect. Importing this patches Ultralytics; `disable` undoes it.

Example:
    >>> import yolo_edgequant
    >>> from ultralytics import YOLO
    >>> YOLO("yolov8n.pt").export(format="tflite", quantize=8, data="coco128.yaml")  # doctest: +SKIP
    'yolov8n_full_integer_quant.tflite'
"""

import os
from importlib import import_module
from importlib.util import find_spec
from typing import Any

__version__ = "0.1.0"

from .errors import EdgeQuantError
from .options import ExportOptions, options
from .upstream import REGISTRY
from .upstream.description import describe

__all__ = [
    "EdgeQuantError",
    "ExportOptions",
    "describe",
    "disable",
    "enable",
    "finetune",
    "options",
    "patched",
    "swap_activation",
]

enable = REGISTRY.enable
disable = REGISTRY.disable
patched = REGISTRY.patched

# these need torch, which importing this package must not
_LAZY = {"finetune": "training.finetune", "swap_activation": "training.activations"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_LAZY[name]}", __name__), name)


if find_spec("ultralytics") is not None:  # the runtime on a device does without
    enable(force=os.environ.get("YOLO_EDGEQUANT_FORCE") == "1")
