"""Quantisation-aware models within Ultralytics: how their fake quantisation is made, trained, saved and exported.

A model that is trained quantisation-aware has its batch-norm folded into its convolutions, as its INT8 file will have,
and a :class:`~..training.fake_quantization.FakeQuantization` as a submodule, so that both are saved with it.
"""

from __future__ import annotations

import contextlib
import copy
import tempfile
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np

from ..errors import RecipeError, UnsupportedModelError
from ..quantization.matching import fingerprint, match, probe
from .export import Job, active, observed
from .images import share

if TYPE_CHECKING:
    import openvino as ov
    import torch
    from torch import nn
    from ultralytics import YOLO
    from ultralytics.engine.trainer import BaseTrainer

    from ..pipeline import Calibrated
    from ..training.fake_quantization import Call, FakeQuantization, Trace

#: Formats whose points a model can be trained for; files of the others have the same points as tflite.
TARGETS = ("tflite", "litert", "openvino")

_NAME = "fake_quantization"
_CALIBRATED_ON = 256  # images at most

_for_training: ContextVar[nn.Module | None] = ContextVar("yolo_edgequant_rounded", default=None)
_paused: ContextVar[bool] = ContextVar("yolo_edgequant_fake_quantization_paused", default=False)


def quantization_of(model: Any) -> FakeQuantization | None:
    """The fake quantisation that a model was trained with; None for others."""
    return getattr(model, "_modules", {}).get(_NAME)


def plan(model: YOLO, data: str, target: str, granularity: str, imgsz: int) -> FakeQuantization:
    """The points of a model's INT8 file, with the ranges that calibration finds best to start from.

    Args:
        model: not fused.
        data: data set YAML; its train split is calibrated on.
        target: one of :data:`TARGETS`.
        granularity: of the weights' steps.
        imgsz: pixels of the square input.

    Raises:
        UnsupportedModelError: the model's forward pass is not Ultralytics' common one, differs between training and
            inference before its head decodes, or does not compute what the file rounds.
    """
    import torch
    from ultralytics import YOLO
    from ultralytics.nn.tasks import BaseModel

    from ..quantization.ranges import completed
    from ..training.fake_quantization import WEIGHTED, FakeQuantization, Trace

    module = model.model
    if type(module).predict is not BaseModel.predict:
        raise UnsupportedModelError(
            f"a {type(module).__name__} cannot be trained quantisation-aware: its forward pass is its own"
        )

    def exported(head: str) -> dict[str, Any]:
        with observed() as seen:
            YOLO(file).export(
                format=target,
                quantize=8,
                data=data,
                split="train",
                fraction=share(data, _CALIBRATED_ON),
                imgsz=imgsz,
                head=head,
                granularity=granularity,
                corrections=None if target == "openvino" else "cells",  # others change weights, which are trained here
                verify=False,
            )
        return seen

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.pt"
        model.save(file)
        seen, whole = exported("raw"), exported("int8")
        fused = folded(YOLO(file).model.float())  # saved in half precision, as what was exported
    shape = (1, module.yaml.get("channels", 3), imgsz, imgsz)
    calls, prints = trace(fused, shape)
    inference = Trace()
    with torch.no_grad(), unquantised(), _tracing(fused, inference):
        fused.eval()(torch.from_numpy(probe(shape)))
    if inference.calls != calls:
        raise UnsupportedModelError(
            f"{type(module).__name__} computes in another order in training than in inference, so the points of its "
            "file cannot be told apart"
        )
    known, ranges = _of_openvino(seen, shape) if target == "openvino" else _of_tflite(seen, shape)
    found = match(prints, known)
    points = {number: ranges[tensor] for number, tensor in found.items()}
    if target == "openvino":
        missing = set(known) - set(found.values())
        if missing:
            raise UnsupportedModelError(
                f"the file rounds '{min(missing)}', which the model's forward pass never computes"
            )
    else:
        trained = {tensor: points[number] for tensor, number in match(known, {n: prints[n] for n in points}).items()}
        try:
            completed(seen["calibrated"].graph, trained)
        except RecipeError as error:
            raise UnsupportedModelError(
                f"a {type(module).__name__} cannot be trained quantisation-aware for {target!r}, whose files compute "
                f"something else than its training: {error}"
            ) from error
    fixed: set[int] = set()
    if target != "openvino":
        fixed = {number for number in points if calls[number].name in {"sigmoid", "softmax"}}
        # TFLite's kernels give these results this range, whatever their values
        points.update(dict.fromkeys(fixed, (0.0, 255 / 256)))
        # the outputs' ranges end where scores count as nothing, which losses over all cells would have them forget
        outputs = {tensor: known[tensor] for tensor in seen["calibrated"].graph.outputs}
        fixed |= set(match(outputs, {number: prints[number] for number in points}).values())
    layers = {number for number, call in enumerate(calls) if call.name in WEIGHTED}
    head = _head_of_openvino(whole, shape, prints) if target == "openvino" else _head_of_tflite(whole)
    return FakeQuantization(points, fixed, layers, granularity, target, head)


def rounded(model: YOLO, quantization: FakeQuantization, images: torch.Tensor) -> YOLO:
    """A copy of a model, on the CPU, that computes with a fake quantisation and biases corrected for it.

    Args:
        model: not fused.
        quantization: its points.
        images: (B, C, H, W) float32, 0 to 1, to correct the biases with.
    """
    import torch

    from ..training.fake_quantization import BiasCorrection

    made = copy.deepcopy(model)
    module = folded(made.model.float().cpu()).train()
    module.add_module(_NAME, quantization)
    with torch.no_grad(), unquantised(), _tracing(module, BiasCorrection(quantization)):
        module(images)
    return made


def _of_tflite(seen: dict[str, Any], shape: tuple[int, ...]) -> tuple[dict[Any, np.ndarray], dict[Any, Any]]:
    """Fingerprints and ranges of the activations of a calibrated graph."""
    calibrated: Calibrated = seen["calibrated"]
    return prints_of(calibrated.content, shape), calibrated.ranges(seen["request"].ranges)


def _of_openvino(seen: dict[str, Any], shape: tuple[int, ...]) -> tuple[dict[Any, np.ndarray], dict[Any, Any]]:
    """Fingerprints and ranges of what a quantised OpenVINO model rounds."""
    from ..quantization import openvino

    ranges = openvino.activation_ranges(seen["quantised"])
    values = openvino.values(seen["float_model"], list(ranges), probe(shape))
    pixels = {node.get_friendly_name() for node in seen["float_model"].get_parameters()}
    return {name: fingerprint(values[name]) for name in ranges if name not in pixels}, ranges


def _head_of_tflite(seen: dict[str, Any]) -> list[tuple[str, float, float]]:
    """Kinds and ranges of Head #3 in a calibrated graph."""
    from ..quantization.ranges import of_head

    calibrated: Calibrated = seen["calibrated"]
    ranges = calibrated.ranges(seen["request"].ranges)
    return [(op.kind, *ranges[op.outputs[0]]) for op in of_head(calibrated.graph)]


def _head_of_openvino(
    seen: dict[str, Any], shape: tuple[int, ...], points: dict[int, np.ndarray]
) -> list[tuple[str, float, float]]:
    """Ranges of what a quantised OpenVINO model rounds and the trained part of the model does not compute."""
    prints, ranges = _of_openvino(seen, shape)
    trained = match(prints, points)
    return [("FakeQuantize", *ranges[name]) for name in prints if name not in trained]


def prints_of(content: bytes, shape: tuple[int, ...]) -> dict[int, np.ndarray]:
    """Fingerprints of every activation of a float ``.tflite`` file for the probe, (B, 3, H, W)."""
    from .. import pipeline
    from ..quantization.graph import Graph

    graph = Graph(content)
    channels_last = graph.shape(graph.inputs[0]) != shape
    return {
        tensor: fingerprint(value)
        for tensor, value in pipeline.activations(content, graph, probe(shape, channels_last)).items()
    }


def trace(model: nn.Module, shape: tuple[int, ...]) -> tuple[list[Call], dict[int, np.ndarray]]:
    """The calls of a fused model's training pass for the probe, and their results' fingerprints."""
    import torch

    from ..training.fake_quantization import Trace

    prints: dict[int, np.ndarray] = {}
    seen = Trace(see=lambda number, values: prints.__setitem__(number, fingerprint(values.numpy())))
    model.train()
    with torch.no_grad(), unquantised(), _tracing(model, seen):
        model(torch.from_numpy(probe(shape)))
    return seen.calls, prints


@contextlib.contextmanager
def _tracing(model: nn.Module, trace: Trace) -> Iterator[None]:
    """Let a trace see a model's calls but not the decoding of its head, which training leaves out."""
    head = model.model[-1]

    def decode(outputs: Any) -> Any:
        with trace.paused():
            return type(head)._inference(head, outputs)

    with mock.patch.object(head, "_inference", decode), trace:
        yield


def folded(model: nn.Module) -> nn.Module:
    """Fold a model's batch-norm into its convolutions, in place, and keep both branches of an end-to-end head."""
    from .heads import detection_head

    head = detection_head(model)
    with mock.patch.object(type(head), "fuse"):
        model.fuse(verbose=False)
    _let_train(model)
    return model


def _let_train(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".dfl." not in name)


def trained_ranges(job: Job, shape: tuple[int, ...], tensors: dict[Any, np.ndarray]) -> dict[Any, tuple[float, float]]:
    """The trained range of each of a graph's tensors that is a point of the model's fake quantisation.

    Args:
        job: the export of a quantisation-aware model.
        shape: (B, C, H, W) of the input.
        tensors: fingerprints for the probe.
    """
    model = copy.deepcopy(job.source).float().cpu()
    _, prints = trace(model, shape)
    ranges = quantization_of(model).ranges()
    points = match(tensors, {number: prints[number] for number in ranges})
    return {tensor: ranges[number] for tensor, number in points.items()}


def calibrated(job: Job, content: bytes, shape: tuple[int, ...], logits: list[int]) -> Calibrated:
    """A float ``.tflite`` file of a quantisation-aware model with the ranges that were trained."""
    from ..pipeline import Calibrated
    from ..quantization.graph import Graph
    from ..quantization.ranges import of_head

    graph = Graph(content)
    ranges = trained_ranges(job, shape, prints_of(content, shape))
    head, known = of_head(graph), quantization_of(job.source).head
    if [op.kind for op in head] == [kind for kind, _, _ in known]:
        ranges |= {op.outputs[0]: (low, high) for op, (_, low, high) in zip(head, known, strict=True)}
    return Calibrated(content, graph, {}, frozenset(graph.outputs[position] for position in logits), ranges)


def quantised(job: Job, float_model: ov.Model, shape: tuple[int, ...]) -> ov.Model:
    """An OpenVINO model of a quantisation-aware model with the ranges that were trained.

    Raises:
        RecipeError: a point of this file was none in training.
    """
    import nncf

    from ..quantization import openvino

    image = probe(shape)
    made = openvino.quantize(float_model, nncf.Dataset([image]), job.request.head, 1, correct_bias=False)
    pixels = {node.get_friendly_name() for node in float_model.get_parameters()}
    names = [name for name in openvino.activation_ranges(made) if name not in pixels]
    prints = {name: fingerprint(value) for name, value in openvino.values(float_model, names, image).items()}
    ranges = trained_ranges(job, shape, prints)
    missing, head = [name for name in names if name not in ranges], quantization_of(job.source).head
    if len(missing) == len(head):
        ranges |= {name: (low, high) for name, (_, low, high) in zip(missing, head, strict=True)}
    elif missing:
        raise RecipeError(no_range(missing[0], quantization_of(job.source).target, job.request.profile.format))
    openvino.set_ranges(made, ranges | dict.fromkeys(pixels, (0.0, 1.0)))
    return made


def no_range(tensor: str, trained: str, wanted: str) -> str:
    """What to say of a tensor without a trained range."""
    return (
        f"tensor '{tensor}' of the {wanted} file has no trained range: the model was trained quantisation-aware for "
        f"format={trained!r}, whose files round at other points; train it with target={wanted!r}, or leave Head #3 "
        "out of the integers with head='float' or 'raw'"
    )


@contextlib.contextmanager
def training_of(model: nn.Module | None) -> Iterator[None]:
    """Let the next training in this context start from what :func:`rounded` made."""
    token = _for_training.set(model)
    try:
        yield
    finally:
        _for_training.reset(token)


@contextlib.contextmanager
def unquantised() -> Iterator[None]:
    """Let models with a fake quantisation compute in float."""
    token = _paused.set(True)
    try:
        yield
    finally:
        _paused.reset(token)


def setup(trainer: BaseTrainer, checkpoint: dict[str, Any] | None) -> None:
    """Put a quantisation-aware model in place of the one that is about to be trained: a new or an interrupted one.

    Upstream built that from its configuration, with the batch-norm that a quantisation-aware one no longer has.
    """
    start = _for_training.get()
    if trainer.resume:
        saved = (checkpoint or {}).get("ema") or (checkpoint or {}).get("model")
        start = getattr(saved, "student_model", saved)
    if quantization_of(start) is None:
        return
    made = copy.deepcopy(start).float()
    made.args = trainer.args
    _let_train(made)
    if hasattr(trainer.model, "student_model"):
        from ultralytics.nn.distill_model import DistillationModel

        made = DistillationModel(trainer.args.distill_model, made)
    trainer.model = made


def predict_once(original: Callable[..., Any], self: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """``BaseModel._predict_once``, which rounds where the model has a fake quantisation; never inside an export."""
    from ..training.fake_quantization import Trace

    quantization = quantization_of(self)
    if quantization is None or _paused.get() or active() is not None:
        return original(self, *args, **kwargs)
    with _tracing(self, Trace(quantization)):
        return original(self, *args, **kwargs)
