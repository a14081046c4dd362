"""Reads a ``.tflite`` file or an OpenVINO model, whoever made it, as tensors and operators with their scales.

Nothing is run, and no interpreter is asked: it would load weights that nobody looks at, and damaged files crash some.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import InferenceError, UnsupportedModelError
from . import read_openvino, read_tflite
from .model import Model


def open_model(path: Path) -> Model:
    """Read a file.

    Args:
        path: a ``.tflite`` file, the ``.xml`` file of an OpenVINO model, or the folder of one.

    Raises:
        InferenceError: there is no such file.
        UnsupportedModelError: it is no such model, damaged, or larger than 1 GiB.
        MissingToolError: what knows the format is not installed.
    """
    if not path.exists():
        raise InferenceError(f"file '{path}' not found (looked in {Path.cwd()})")
    if not path.is_dir():
        return (read_openvino if path.suffix.lower() == ".xml" else read_tflite).read(path)
    files = sorted(path.glob("*.xml"))
    if len(files) != 1:
        raise UnsupportedModelError(f"'{path}' holds {len(files)} .xml files; an OpenVINO model's folder holds one")
    return read_openvino.read(files[0])
