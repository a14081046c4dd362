"""A model file and the program that runs it: one of several TFLite interpreters, or OpenVINO."""

from __future__ import annotations

import importlib
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .. import contract
from ..contract import Contract
from ..errors import InferenceError, MissingToolError, UnsupportedModelError

#: Libraries of the delegates that have a name here; any other library goes by its path.
DELEGATES = {"edgetpu": "libedgetpu.so.1", "vx": "libvx_delegate.so"}

_TFLITE = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter", "tensorflow.lite")

_RUNS = 30  # that a latency is the median of


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


@dataclass(frozen=True)
class Run:
    """Outputs of a model for several images.

    Attributes:
        tensors: types of the outputs.
        outputs: for each image, the outputs as stored; perhaps computed while one goes through them.
    """

    tensors: list[Tensor]
    outputs: Iterable[list[np.ndarray]]


class Interpreter(Protocol):
    """Runs one model on one image at a time."""

    input: Tensor
    outputs: list[Tensor]

    def run(self, image: np.ndarray) -> list[np.ndarray]:
        """Run the model on an image as stored; the arrays are as stored and are valid until the next call."""

    def bound(self, image: np.ndarray) -> Callable[[], Any]:
        """A function that runs the model on one image that is in place already, and fetches nothing; for timing."""


def times(run: Callable[[], Any], count: int) -> list[float]:
    """Milliseconds that a function of :meth:`Interpreter.bound` takes, call by call."""
    taken = []
    for _ in range(count):
        start = time.perf_counter()
        run()
        taken.append(1000 * (time.perf_counter() - start))
    return taken


def latency(run: Callable[[], Any]) -> float:
    """The median of these over 30 calls."""
    return float(np.median(times(run, _RUNS)))


def open_tflite(
    model: Path | bytes, threads: int, delegates: Sequence[str] = (), keep_all: bool = False
) -> tuple[Any, dict[str, Any], list[dict[str, Any]]]:
    """A TFLite interpreter for a model with one input, by the first package that is installed.

    Args:
        model, threads, delegates, keep_all: see :func:`allocated`.

    Returns:
        The interpreter with its tensors allocated, and the details of its input and of its outputs.

    Raises:
        MissingToolError: there is no interpreter, or no such delegate.
        UnsupportedModelError: the interpreter cannot read the model, or it has several inputs.
    """
    interpreter, inputs, outputs = allocated(model, threads, delegates, keep_all)
    if len(inputs) != 1:
        raise UnsupportedModelError(f"{_name(model)} has {len(inputs)} inputs, not 1")
    return interpreter, inputs[0], outputs


def allocated(
    model: Path | bytes, threads: int, delegates: Sequence[str] = (), keep_all: bool = False
) -> tuple[Any, list[dict[str, Any]], list[dict[str, Any]]]:
    """A TFLite interpreter, by ai-edge-litert, tflite-runtime or TensorFlow, the first that is installed.

    Args:
        model: a ``.tflite`` file, or what is in one.
        threads: of the CPU.
        delegates: keys of :data:`DELEGATES`, or paths of delegates' libraries.
        keep_all: keep the value of every tensor, not of the outputs alone.

    Returns:
        The interpreter with its tensors allocated, and the details of its inputs and of its outputs.

    Raises:
        MissingToolError: there is no interpreter, or no such delegate.
        UnsupportedModelError: the interpreter cannot read the model.
    """
    module = _first_installed(_TFLITE)
    if module is None:
        raise MissingToolError(
            "no TFLite interpreter is installed; install one with: pip install 'yolo-edgequant[runtime]'"
        )
    loaded = [_delegate(module, name) for name in delegates]
    source = {"model_content": model} if isinstance(model, bytes) else {"model_path": str(model)}
    keep = {"experimental_preserve_all_tensors": True} if keep_all else {}
    try:
        with no_warning_of_kept_tensors(keep_all):
            interpreter = module.Interpreter(
                **source, **keep, num_threads=threads, experimental_delegates=loaded or None
            )
            interpreter.allocate_tensors()
        return interpreter, interpreter.get_input_details(), interpreter.get_output_details()
    except (ValueError, RuntimeError) as error:
        raise UnsupportedModelError(f"{_name(model)} cannot be run: {' '.join(str(error).split())}") from error


def _name(model: Path | bytes) -> str:
    return "the model" if isinstance(model, bytes) else f"'{model}'"


def _delegate(module: Any, name: str) -> Any:
    library = DELEGATES.get(name, name)
    load = getattr(module, "load_delegate", None) or module.experimental.load_delegate
    try:
        return load(library)
    except (OSError, ValueError) as error:
        raise MissingToolError(f"the delegate '{library}' could not be loaded: {error}") from error


@contextmanager
def no_warning_of_kept_tensors(wanted: bool = True) -> Iterator[None]:
    """Make no warning of an interpreter that keeps every tensor, which is what it is made for."""
    with warnings.catch_warnings():
        if wanted:
            warnings.filterwarnings("ignore", message=".*experimental_preserve_all_tensors.*")
        yield


class TFLite:
    """A ``.tflite`` file.

    Args:
        model: the file, or what is in one.
        threads: of the CPU.
        delegate: a key of :data:`DELEGATES`, or the path of a delegate's library.

    Raises:
        MissingToolError, UnsupportedModelError: see :func:`open_tflite`.
    """

    def __init__(self, model: Path | bytes, threads: int, delegate: str | None = None) -> None:
        delegates = () if delegate is None else (delegate,)
        self._interpreter, source, targets = open_tflite(model, threads, delegates)
        self._source, self._targets = source["index"], [target["index"] for target in targets]
        self.input, self.outputs = Tensor.of(source), [Tensor.of(target) for target in targets]

    def run(self, image: np.ndarray) -> list[np.ndarray]:
        """See :class:`Interpreter`."""
        self._interpreter.set_tensor(self._source, image)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._targets]

    def bound(self, image: np.ndarray) -> Callable[[], Any]:
        """See :class:`Interpreter`."""
        self._interpreter.set_tensor(self._source, image)
        return self._interpreter.invoke


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
        """See :class:`Interpreter`."""
        outputs = self._request.infer([image], share_inputs=True, share_outputs=True)
        return [outputs[position] for position in range(len(self.outputs))]

    def bound(self, image: np.ndarray) -> Callable[[], Any]:
        """See :class:`Interpreter`."""
        return lambda: self._request.infer([image], share_inputs=True, share_outputs=True)


def load(path: Path, threads: int, delegate: str | None) -> tuple[Interpreter, Contract]:
    """Open a model file.

    Args:
        path: a ``.tflite`` file or an OpenVINO model's folder, from an export with ``import yolo_edgequant``.
        threads: of the CPU.
        delegate: for ``.tflite`` files, see :class:`TFLite`.

    Returns:
        The interpreter and the file's contract.

    Raises:
        InferenceError: there is no such file.
        ContractError: the file carries no contract of ours, one of a later version, or is damaged.
        UnsupportedModelError: the interpreter cannot read the file.
        MissingToolError: what runs such a file is not installed.
    """
    if not path.exists():
        raise InferenceError(f"model '{path}' not found (looked in {Path.cwd()})")
    facts = contract.read(path)
    return open_file(path, threads, delegate), facts


def open_file(path: Path, threads: int, delegate: str | None = None) -> Interpreter:
    """The interpreter for a ``.tflite`` file or an OpenVINO model's folder, whoever made it.

    Raises:
        InferenceError: a delegate for OpenVINO.
        UnsupportedModelError: the interpreter cannot read the file.
        MissingToolError: what runs such a file is not installed.
    """
    if not path.is_dir():
        return TFLite(path, threads, delegate)
    if delegate is not None:
        raise InferenceError(f"delegate={delegate!r} is for .tflite files; '{path}' is an OpenVINO model")
    return OpenVINO(path, threads)


def _first_installed(names: tuple[str, ...]) -> Any | None:
    """The first of several modules that is installed."""
    for name in names:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    return None
