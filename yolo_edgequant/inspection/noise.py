"""How much of the signal is left in each tensor of a file, beside its float model, on images.

Both models are run on the same images with every tensor kept. An operator of the one is the operator of the other that
stands at the same place in the sequence of kinds and shapes; names differ from converter to converter.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MissingToolError, UnsupportedModelError
from ..processes import usable_threads
from ..runtime.detections import Detections
from ..runtime.interpreter import Tensor as Stored
from ..runtime.interpreter import open_tflite
from ..runtime.letterbox import Letterbox
from ..verification.worst_tensor import fidelity
from .finder import finder
from .model import Model, Node
from .reading import open_model

_PASSED_OVER = {"QUANTIZE", "DEQUANTIZE", "FakeQuantize", "Convert"}


@dataclass(frozen=True)
class Noise:
    """What is left of the signal in a tensor.

    Attributes:
        tensor: its index in the file.
        reference: the tensor's index in the float model.
        snr_db: signal to noise over all values and images, decibels.
        kept: 0 to 1: the same channel by channel, so that boxes do not hide scores beside them.
    """

    tensor: int
    reference: int
    snr_db: float
    kept: float


@dataclass(frozen=True)
class View:
    """What one file shows in an image.

    Attributes:
        role: ``float``, ``file`` or ``beside``.
        count: of objects.
        best: their highest score; None without any.
        picture: JPEG with the objects drawn.
    """

    role: str
    count: int
    best: float | None
    picture: bytes


@dataclass(frozen=True)
class Measured:
    """What running files on images gives.

    Attributes:
        images: their names.
        noise: of the file's tensors; empty without a float model.
        views: for each image, what each file shows.
        troubles: why a file's objects are not shown, by role.
    """

    images: tuple[str, ...]
    noise: tuple[Noise, ...]
    views: tuple[tuple[View, ...], ...]
    troubles: Mapping[str, str]


def measure(path: Path, reference: Path | None, beside: Path | None, images: Sequence[Path]) -> Measured:
    """Run a file, its float model and another file on images, in a process of their own.

    An interpreter may crash on a damaged file; then that is one error here.

    Args:
        path: ``.tflite`` file, or an OpenVINO model's folder or ``.xml``.
        reference: the float model, of the same kinds; None for none.
        beside: another file to draw the objects of.
        images: files that OpenCV reads.

    Raises:
        UnsupportedModelError: an interpreter cannot run one of them, or crashed.
        InferenceError, MissingToolError: an image cannot be read, or what runs such a file is not installed.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_measure, path, reference, beside, list(images)).result()
        except BrokenProcessPool:
            raise UnsupportedModelError(
                f"the interpreter crashed on '{path}', or on a model beside it: it is damaged; export it again"
            ) from None


def _measure(path: Path, reference: Path | None, beside: Path | None, images: list[Path]) -> Measured:
    """:func:`measure`, in this process."""
    opencv = _opencv()
    pictures = [opencv.imread(str(image)) for image in images]
    for image, picture in zip(images, pictures, strict=True):
        if picture is None:
            raise UnsupportedModelError(f"'{image}' is not an image that OpenCV can read")
    noise = () if reference is None else tuple(_noise(open_model(path), open_model(reference), pictures))
    views: list[list[View]] = [[] for _ in images]
    troubles = {}
    for role, file in (("float", reference), ("file", path), ("beside", beside)):
        if file is None:
            continue
        try:
            find = finder(file.parent if file.suffix.lower() == ".xml" else file)
            for position, picture in enumerate(pictures):
                views[position].append(_view(role, picture, find(picture)))
        except UnsupportedModelError as error:
            troubles[role] = str(error)
    return Measured(tuple(image.name for image in images), noise, tuple(map(tuple, views)), troubles)


def aligned(model: Model, reference: Model) -> dict[int, int]:
    """Tensors of a model that hold what a tensor of another holds, by index: of operators at the same place.

    OpenVINO's operators go by name, which quantizing leaves as it is.
    """
    if model.family == reference.family == "openvino":
        named = {tensor.name: index for index, tensor in enumerate(reference.tensors) if not tensor.constant}
        pairs = {t: named[name] for t in model.computed if (name := model.tensors[t].name) in named}
        return {t: r for t, r in pairs.items() if model.tensors[t].shape == reference.tensors[r].shape}
    ours, theirs = _sequence(model), _sequence(reference)
    pairs = {}
    matcher = SequenceMatcher(None, [key for key, _ in ours], [key for key, _ in theirs], autojunk=False)
    for block in matcher.get_matching_blocks():
        for step in range(block.size):
            one, other = ours[block.a + step][1], theirs[block.b + step][1]
            pairs.update(zip(one.outputs, other.outputs, strict=True))
    for one, other in zip(model.outputs, reference.outputs, strict=False):
        if model.tensors[one].shape == reference.tensors[other].shape:
            pairs[one] = other
    return pairs


def _sequence(model: Model) -> list[tuple[tuple[Any, ...], Node]]:
    """Operators that compute or move something, each with what tells it from others: two slices differ by constants."""
    return [
        (
            (
                node.kind,
                tuple(model.tensors[t].shape for t in node.outputs),
                tuple(
                    values.tobytes()
                    for t in node.inputs
                    if (values := model.tensors[t].values) is not None and model.tensors[t].dtype in {"int32", "int64"}
                    if not len(model.tensors[t].scales)
                ),
            ),
            node,
        )
        for node in model.nodes
        if node.kind not in _PASSED_OVER and node.outputs
    ]


def _noise(model: Model, reference: Model, pictures: Sequence[np.ndarray]) -> list[Noise]:
    """The noise of each tensor that both models have, in execution order."""
    pairs = aligned(model, reference)
    ours, theirs = _Runner(model, set(pairs)), _Runner(reference, set(pairs.values()))
    signal, noise, kept = dict.fromkeys(pairs, 0.0), dict.fromkeys(pairs, 0.0), dict.fromkeys(pairs, 0.0)
    measured = set(pairs)
    for picture in pictures:
        values, exact = ours(picture), theirs(picture)
        for tensor, other in pairs.items():
            if tensor not in values or other not in exact or values[tensor].shape != exact[other].shape:
                measured.discard(tensor)
                continue
            one, two = exact[other].astype(np.float64), values[tensor].astype(np.float64)
            signal[tensor] += float(np.var(one))
            noise[tensor] += float(np.mean(np.square(one - two)))
            kept[tensor] += fidelity(one, two) / len(pictures)
    rows = []
    for tensor in model.computed:
        if tensor in measured and signal[tensor] > 0 and np.isfinite(noise[tensor]):
            ratio = 10 * np.log10(signal[tensor] / max(noise[tensor], signal[tensor] * 1e-12))
            rows.append(Noise(tensor, pairs[tensor], float(ratio), kept[tensor]))
    return rows


class _Runner:
    """Runs a model with every tensor kept.

    Args:
        model: that was read from a file.
        wanted: tensors whose values to give.
    """

    def __init__(self, model: Model, wanted: set[int]) -> None:
        self._model, self._wanted = model, wanted
        if model.family == "tflite":
            self._interpreter, source, _ = open_tflite(model.path, usable_threads(), keep_all=True)
            self._source, stored = source["index"], Stored.of(source)
        else:
            self._compiled, self._positions, stored = _openvino(model, wanted)
        if len(stored.shape) != 4 or 3 not in (stored.shape[1], stored.shape[3]) or stored.shape[0] != 1:
            raise UnsupportedModelError(f"'{model.path}' takes {stored.shape}, which is no image of three channels")
        self._letterbox = Letterbox(stored, stored.shape[3] == 3)

    def __call__(self, picture: np.ndarray) -> dict[int, np.ndarray]:
        """Values of the wanted tensors for an image, (H, W, 3) uint8 BGR, by index."""
        fitted, _ = self._letterbox(picture)
        if self._model.family == "openvino":
            results = self._compiled([fitted])
            return {tensor: results[position] for tensor, position in self._positions.items()}
        self._interpreter.set_tensor(self._source, fitted)
        self._interpreter.invoke()
        return {t: self._value(t) for t in self._wanted if self._is_number(t)}

    def _is_number(self, tensor: int) -> bool:
        info = self._model.tensors[tensor]
        return info.dtype == "float32" or (info.dtype in {"int8", "uint8", "int16"} and info.scale is not None)

    def _value(self, tensor: int) -> np.ndarray:
        info, stored = self._model.tensors[tensor], self._interpreter.get_tensor(tensor)
        if info.scale is None:
            return stored
        return (stored.astype(np.float32) - int(info.zero_points[0])) * np.float32(info.scale)


def _openvino(model: Model, wanted: set[int]) -> tuple[Any, dict[int, int], Stored]:
    """A compiled model that also gives what its operations compute, where that is, and what it takes."""
    try:
        import openvino as ov
    except ModuleNotFoundError as error:
        raise MissingToolError("OpenVINO is not installed; install it with: pip install openvino") from error
    try:
        network = ov.Core().read_model(str(model.path))
        names = {model.tensors[tensor].name: tensor for tensor in wanted}
        nodes = [
            op
            for op in network.get_ordered_ops()
            if op.get_friendly_name() in names and op.get_output_size() == 1 and op.get_type_name() != "Result"
            if op.output(0).get_element_type() == ov.Type.f32
        ]
        network.add_outputs([op.output(0) for op in nodes])
        compiled = ov.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    except RuntimeError as error:
        raise UnsupportedModelError(f"'{model.path}' cannot be run: {str(error).splitlines()[0][:300]}") from error
    places = {result.get_node().input_value(0): position for position, result in enumerate(network.outputs)}
    positions = {names[op.get_friendly_name()]: places[op.output(0)] for op in nodes if op.output(0) in places}
    return compiled, positions, Stored(tuple(compiled.inputs[0].shape), np.dtype(np.float32))


def _view(role: str, picture: np.ndarray, objects: Detections) -> View:
    """The objects, drawn on a picture of at most 480 pixels."""
    from ..runtime.annotate import annotate

    opencv = _opencv()
    drawn = annotate(picture, objects)
    ratio = min(1.0, 480 / max(drawn.shape[:2]))
    small = opencv.resize(drawn, None, fx=ratio, fy=ratio, interpolation=opencv.INTER_AREA) if ratio < 1 else drawn
    _, encoded = opencv.imencode(".jpg", small, [opencv.IMWRITE_JPEG_QUALITY, 80])
    return View(role, len(objects), float(objects.scores.max()) if len(objects) else None, encoded.tobytes())


def _opencv() -> Any:
    try:
        import cv2
    except ModuleNotFoundError as error:
        raise MissingToolError(
            "reading pictures needs OpenCV; install it with: pip install 'yolo-edgequant[inspect]'"
        ) from error
    return cv2
