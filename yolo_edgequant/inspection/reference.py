"""The float model to compare a file with, from a checkpoint, by Ultralytics' own export."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..errors import ConversionError, InferenceError
from .model import Model


def reference(given: Path, model: Model, folder: Path) -> Path:
    """The float model as a file.

    Args:
        given: a ``.pt`` checkpoint, which is exported, or a float file, which is taken.
        model: that is to be compared with it: its family and size are those of the export.
        folder: for the export, which leaves the checkpoint's own folder alone.

    Raises:
        InferenceError: there is no such file.
        ConversionError: Ultralytics cannot export it.
    """
    if not given.exists():
        raise InferenceError(f"float model '{given}' not found (looked in {Path.cwd()})")
    if given.suffix != ".pt":
        return given
    from ..upstream.models import YOLO, quiet

    checkpoint = Path(shutil.copy(given, folder))
    shape = model.tensors[model.inputs[0]].shape
    size = list(shape[1:3] if shape[3] == 3 else shape[2:4])
    name = "litert" if model.family == "tflite" else "openvino"
    try:
        with quiet():
            return Path(YOLO(checkpoint).export(format=name, imgsz=size))
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ConversionError(f"'{given}' cannot be exported in float as format={name!r}: {reason}") from error
