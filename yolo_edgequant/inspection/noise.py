"""How much of the signal is left in each tensor of a file, beside its float model, on images.

Both models are run on the same images with every tensor kept. An operator of the one is the operator of the other that
stands at the same place in the sequence of kinds and shapes; names differ from converter to converter.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from difflib import SequenceMatcher
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MissingToolError, UnsupportedModelError
from ..processes import usable_threads
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


def measure(path: Path, reference: Path | None, beside: Path | None, images: Path, count: int) -> Measured:
    """Run a file, its float model and another file on images, in a process of their own.

    An interpreter may crash on a damaged file; then that is one error here.

    Args:
        path: ``.tflite`` file, or an OpenVINO model's folder or ``.xml``.
        reference: the float model, of the same kinds; None for none.
        beside: another file to draw the objects of.
        images: a picture, or a folder of such.
        count: of pictures to run, at most.

    Raises:
        UnsupportedModelError: an interpreter cannot run one of them, or crashed.
        InferenceError, MissingToolError: an image cannot be read, or what runs such a file is not installed.
    """
    if find_spec("cv2") is None:
        raise MissingToolError("reading pictures needs OpenCV; install it with: pip install 'yolo-edgequant[inspect]'")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_measure, path, reference, beside, images, count).result()
        except BrokenProcessPool:
            raise UnsupportedModelError(
                f"the interpreter crashed on '{path}', or on a model beside it: it is damaged; export it again"
            ) from None


def _measure(path: Path, reference: Path | None, beside: Path | None, images: Path, count: int) -> Measured:
    """:func:`measure`, in this process."""
    from . import drawing

    named = drawing.read(images, count)
    pictures = [picture for _, picture in named]
    noise = () if reference is None else tuple(_noise(open_model(path), open_model(reference), pictures))
    views: list[list[View]] = [[] for _ in named]
    troubles = {}
    for role, file in (("float", reference), ("file", path), ("beside", beside)):
        if file is None:
            continue
        try:
            find = finder(file.parent if file.suffix.lower() == ".xml" else file)
            for position, picture in enumerate(pictures):
                objects = find(picture)
                best = float(objects.scores.max()) if len(objects) else None
                views[position].append(View(role, len(objects), best, drawing.drawn(picture, objects)))
        except UnsupportedModelError as error:
            troubles[role] = str(error)
    return Measured(tuple(name for name, _ in named), noise, tuple(map(tuple, views)), troubles)


def aligned(model: Model, reference: Model) -> dict[int, int]:
    """Tensors of a model that hold what a tensor of another holds, by index: of operators at the same place.

    In ``.tflite`` that is the place in the sequence of operators. OpenVINO's order is not kept by quantizing; there it
    is what an operator reads, with its name where that leaves a choice (names alone are counted anew).
    """
    both = model.family == reference.family == "openvino"
    pairs = _by_inputs(model, reference) if both else _by_sequence(model, reference)
    for one, other in zip(model.outputs, reference.outputs, strict=False):
        if model.tensors[one].shape == reference.tensors[other].shape:
            pairs[one] = other
    return pairs


def _by_sequence(model: Model, reference: Model) -> dict[int, int]:
    ours, theirs = _sequence(model), _sequence(reference)
    pairs: dict[int, int] = {}
    matcher = SequenceMatcher(None, [key for key, _ in ours], [key for key, _ in theirs], autojunk=False)
    for block in matcher.get_matching_blocks():
        for step in range(block.size):
            one, other = ours[block.a + step][1], theirs[block.b + step][1]
            pairs.update(zip(one.outputs, other.outputs, strict=True))
    return pairs


def _by_inputs(model: Model, reference: Model) -> dict[int, int]:
    candidates: dict[tuple[Any, ...], list[Node]] = {}
    for node in reference.nodes:
        sources = tuple(_source(reference, t) for t in node.inputs if not reference.tensors[t].constant)
        candidates.setdefault((node.kind, sources, _shapes(reference, node)), []).append(node)
    pairs = dict(zip(model.inputs, reference.inputs, strict=False))
    for node in model.nodes:
        if node.kind in _PASSED_OVER or not node.outputs:
            continue
        sources = tuple(pairs.get(_source(model, t), -1) for t in node.inputs if not model.tensors[t].constant)
        choice = candidates.get((node.kind, sources, _shapes(model, node)), [])
        name = model.tensors[node.outputs[0]].name
        other = next((c for c in choice if reference.tensors[c.outputs[0]].name == name), choice[0] if choice else None)
        if other is not None:
            choice.remove(other)
            pairs.update(zip(node.outputs, other.outputs, strict=True))
    return pairs


def _source(model: Model, tensor: int) -> int:
    """The tensor before it was rounded."""
    while (node := model.producer.get(tensor)) is not None and node.kind in _PASSED_OVER:
        tensor = node.inputs[0]
    return tensor


def _shapes(model: Model, node: Node) -> tuple[tuple[int, ...], ...]:
    return tuple(model.tensors[tensor].shape for tensor in node.outputs)


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
    ours, theirs = _runner(model, set(pairs)), _runner(reference, set(pairs.values()))
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


class _TFLite:
    """Runs a ``.tflite`` model with every tensor kept.

    Args:
        model: that was read from a file.
        wanted: tensors whose values to give.
    """

    def __init__(self, model: Model, wanted: Collection[int]) -> None:
        self._model = model
        self._wanted = [tensor for tensor in wanted if self._is_number(tensor)]
        self._interpreter, source, _ = open_tflite(model.path, usable_threads(), keep_all=True)
        self._source, self.input = source["index"], Stored.of(source)

    def __call__(self, fitted: np.ndarray) -> dict[int, np.ndarray]:
        """Values of the wanted tensors for an image as stored, float32, by index."""
        self._interpreter.set_tensor(self._source, fitted)
        self._interpreter.invoke()
        return {tensor: self._value(tensor) for tensor in self._wanted}

    def _is_number(self, tensor: int) -> bool:
        info = self._model.tensors[tensor]
        return info.dtype == "float32" or (info.dtype in {"int8", "uint8", "int16"} and info.scale is not None)

    def _value(self, tensor: int) -> np.ndarray:
        info, stored = self._model.tensors[tensor], self._interpreter.get_tensor(tensor)
        if info.scale is None:
            return stored
        return (stored.astype(np.float32) - int(info.zero_points[0])) * np.float32(info.scale)


def _runner(model: Model, wanted: Collection[int]) -> Callable[[np.ndarray], dict[int, np.ndarray]]:
    """What gives values of the wanted tensors for an image, (H, W, 3) uint8 BGR, by index.

    Raises:
        UnsupportedModelError: the model takes no image, or cannot be run.
        MissingToolError: what runs it is not installed.
    """
    if model.family == "tflite":
        run: Any = _TFLite(model, wanted)
    elif find_spec("openvino") is None:
        raise MissingToolError("OpenVINO is not installed; install it with: pip install openvino")
    else:
        from .openvino_runs import Kept

        run = Kept(model, wanted)
    shape = run.input.shape
    if len(shape) != 4 or shape[0] != 1 or 3 not in (shape[1], shape[3]):
        raise UnsupportedModelError(f"'{model.path}' takes {shape}, which is no image of three channels")
    letterbox = Letterbox(run.input, shape[3] == 3)
    return lambda picture: run(letterbox(picture)[0])
