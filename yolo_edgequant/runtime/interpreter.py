"""A model file and the program that runs it: one of several TFLite interpreters, or OpenVINO."""

from __future__ import annotations

import importlib
import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import InferenceError, MissingToolError, UnsupportedModelError

#: Libraries of the delegates that have a name here; any other library goes by its path.
DELEGATES = {"edgetpu": "libedgetpu.so.1", "vx": "libvx_delegate.so"}

_TFLITE = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter", "tensorflow.lite")


@dataclass(frozen=True)
class Tensor:
    """Type of an input or output.

    Attributes:
        shape: of the array.
        dtype: int8, uint8 or float32.
        scale, zero_point: ``value = (stored - zero_point) * scale``; 1 and 0 for float32.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    scale: float = 1.0
    zero_point: int = 0

    @classmethod
    def of(cls, details: dict[str, Any]) -> Tensor:
        """The tensor that a TFLite interpreter's details describe."""
        shape, dtype = tuple(int(n) for n in details["shape"]), np.dtype(details["dtype"])
        return cls(shape, dtype) if dtype == np.float32 else cls(shape, dtype, *details["quantization"])

    def stored(self, values: np.ndarray) -> np.ndarray:
        """Float values as stored numbers: rounded and clipped to what the type holds."""
        if self.dtype == np.float32:
            return np.ascontiguousarray(values, np.float32)
        limits = np.iinfo(self.dtype)
        return np.clip(np.rint(values / self.scale) + self.zero_point, limits.min, limits.max).astype(self.dtype)

    def values(self, stored: np.ndarray) -> np.ndarray:
        """Stored numbers as float32 values."""
        if self.dtype == np.float32:
            return stored
        return (stored.astype(np.float32) - self.zero_point) * np.float32(self.scale)

    def table(self) -> np.ndarray:
        """(256,) float32: the value of each number that an 8-bit tensor can store, the smallest first."""
        limits = np.iinfo(self.dtype)
        return self.values(np.arange(limits.min, limits.max + 1))


class Interpreter(Protocol):
    """Runs one model on one image at a time."""

    input: Tensor
    outputs: list[Tensor]

    def run(self, image: np.ndarray) -> list[np.ndarray]:
        """Run the model; the arrays are as stored and are valid until the next call."""


class TFLite:
    """A ``.tflite`` file, run by ai-edge-litert, tflite-runtime or TensorFlow, the first that is installed.

    Args:
        path: the file.
        threads: of the CPU.
        delegate: a key of :data:`DELEGATES`, or the path of a delegate's library.

    Raises:
        MissingToolError: there is no interpreter, or no such delegate.
        UnsupportedModelError: the interpreter cannot read the file.
    """

    def __init__(self, path: Path, threads: int, delegate: str | None) -> None:
        module = _first_installed(_TFLITE)
        if module is None:
            raise MissingToolError(
                "no TFLite interpreter is installed; install one with: pip install 'yolo-edgequant[runtime]'"
            )
        delegates = []
        if delegate is not None:
            library = DELEGATES.get(delegate, delegate)
            load = getattr(module, "load_delegate", None) or module.experimental.load_delegate
            try:
                delegates = [load(library)]
            except (OSError, ValueError) as error:
                raise MissingToolError(f"the delegate '{library}' could not be loaded: {error}") from error
        try:
            self._interpreter = module.Interpreter(
                str(path), num_threads=threads, experimental_delegates=delegates or None
            )
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise UnsupportedModelError(f"'{path}' cannot be run: {' '.join(str(error).split())}") from error
        (source,), targets = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self._source, self._targets = source["index"], [target["index"] for target in targets]
        self.input, self.outputs = Tensor.of(source), [Tensor.of(target) for target in targets]

    def run(self, image: np.ndarray) -> list[np.ndarray]:
        """Run the model."""
        self._interpreter.set_tensor(self._source, image)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._targets]


class OpenVINO:
    """An OpenVINO model's folder, on the CPU.

    Args:
        path: the folder.
        threads: of the CPU.

    Raises:
        MissingToolError: OpenVINO is not installed.
        UnsupportedModelError: the folder holds no model that it can read.
    """

    def __init__(self, path: Path, threads: int) -> None:
        openvino = _first_installed(("openvino",))
        if openvino is None:
            raise MissingToolError("OpenVINO is not installed; install it with: pip install openvino")
        files = sorted(path.glob("*.xml"))
        if len(files) != 1:
            raise UnsupportedModelError(f"'{path}' holds {len(files)} .xml files; an OpenVINO model's folder holds one")
        options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        try:
            compiled = openvino.Core().compile_model(str(files[0]), "CPU", options)
        except RuntimeError as error:
            raise UnsupportedModelError(f"'{files[0]}' cannot be run: {str(error).splitlines()[0]}") from error
        if compiled.inputs[0].get_partial_shape().is_dynamic:
            raise UnsupportedModelError(f"'{path}' has dynamic shapes; export it without dynamic=True")
        self._request = compiled.create_infer_request()
        self.input = Tensor(tuple(compiled.inputs[0].shape), np.dtype(np.float32))
        self.outputs = [Tensor(tuple(output.shape), np.dtype(np.float32)) for output in compiled.outputs]

    def run(self, image: np.ndarray) -> list[np.ndarray]:
        """Run the model."""
        made = self._request.infer([image], share_inputs=True, share_outputs=True)
        return [made[position] for position in range(len(self.outputs))]


def load(path: Path, threads: int, delegate: str | None) -> tuple[Interpreter, dict[str, Any]]:
    """Open a model file.

    Args:
        path: a ``.tflite`` file or an OpenVINO model's folder, from an export with ``import yolo_edgequant``.
        threads: of the CPU.
        delegate: for ``.tflite`` files, see :class:`TFLite`.

    Returns:
        The interpreter and the file's metadata.

    Raises:
        InferenceError: there is no such file.
        UnsupportedModelError: the file carries no contract of ours, or one of a later version.
        MissingToolError: what runs such a file is not installed.
    """
    if not path.exists():
        raise InferenceError(f"model '{path}' not found (looked in {Path.cwd()})")
    metadata = _metadata(path)
    contract = metadata.get("edgequant")
    if contract is None:
        raise UnsupportedModelError(
            f"'{path}' does not say how to decode it; export it again with 'import yolo_edgequant' before the export"
        )
    if contract["schema"] != 1:
        raise UnsupportedModelError(f"'{path}' has metadata of schema {contract['schema']}, this version reads 1")
    if path.is_dir():
        if delegate is not None:
            raise InferenceError(f"delegate={delegate!r} is for .tflite files; '{path}' is an OpenVINO model")
        return OpenVINO(path, threads), metadata
    return TFLite(path, threads, delegate), metadata


def usable_threads() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _metadata(path: Path) -> dict[str, Any]:
    """The metadata of a file, empty if it has none."""
    if path.is_dir():
        beside = path / "metadata.json"
        return json.loads(beside.read_text()) if beside.is_file() else {}
    if not zipfile.is_zipfile(path):
        return {}
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("metadata.json")) if "metadata.json" in archive.namelist() else {}


def _first_installed(names: tuple[str, ...]) -> Any | None:
    """The first of several modules that is installed."""
    for name in names:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    return None
