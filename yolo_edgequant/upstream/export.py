"""The export call: take our options, decide whether the export is ours, and check all that can be known beforehand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CalibrationError, MissingToolError, OptionError, UnsupportedModelError
from ..options import NAMES, current, options
from ..targets.profiles import PROFILES, Request, require_packages, resolve

if TYPE_CHECKING:
    from torch import nn
    from ultralytics.engine.exporter import Exporter
    from ultralytics.engine.model import Model

# The converters trace through global state of torch, JAX and MLIR, upstream's too, so one export runs at a time.
_one_at_a_time = threading.RLock()


@dataclass(frozen=True)
class Job:
    """An INT8 export of ours under way.

    Attributes:
        exporter: Ultralytics', which works on a copy of the model that it prepares.
        request: what is to be made.
        source: the model before any preparation.
    """

    exporter: Exporter
    request: Request
    source: nn.Module

    def note(self, **parts: Any) -> None:
        """Hand parts of the way to whoever asked for them with :func:`observed`."""
        seen = _seen.get()
        if seen is not None:
            seen.update(parts, request=self.request)


_active: ContextVar[Job | None] = ContextVar("yolo_edgequant_job", default=None)
_seen: ContextVar[dict[str, Any] | None] = ContextVar("yolo_edgequant_seen", default=None)


def active() -> Job | None:
    """The INT8 export that this thread is in, or None outside of one."""
    return _active.get()


@contextmanager
def observed() -> Iterator[dict[str, Any]]:
    """Gather what exports inside the context note: models and statistics that are gone when an export returns."""
    parts: dict[str, Any] = {}
    token = _seen.set(parts)
    try:
        yield parts
    finally:
        _seen.reset(token)


@contextmanager
def _activate(job: Job) -> Iterator[None]:
    token = _active.set(job)
    try:
        yield
    finally:
        _active.reset(token)


def model_export(original: Callable[..., str], self: Model, **kwargs: Any) -> str:
    """``Model.export``, which takes our options besides its own."""
    ours = {name: kwargs.pop(name) for name in NAMES & kwargs.keys()}
    with options(**{name: value for name, value in ours.items() if value is not None}):
        return original(self, **kwargs)


def exporter_call(original: Callable[..., str], self: Exporter, model: nn.Module) -> str:
    """``Exporter.__call__``, which hands INT8 exports of our formats to our converters."""
    from . import aware
    from .heads import one_to_one

    request = _request(self)
    if request is None:
        with _one_at_a_time, aware.unquantised():
            return original(self, model)
    source = model
    head = _check(self, model)
    if head is None:
        request = replace(request, head="int8")  # nothing to keep apart
    elif self.args.nms is False and getattr(head, "one2one_cv2", None) is not None:
        model = one_to_one(model)
    quantization = aware.quantization_of(model)
    if quantization is not None:
        request = _as_trained(request, quantization.granularity)
        self.args.data = "none, the ranges were trained"  # or upstream falls back to a set of its own
    _check_integers(request, model)
    if request.profile.format in {"tflite", "edgetpu"}:
        self.args.format = "litert"  # upstream's name of the way to .tflite; our converter sees the request
        self.args.opset = None  # no ONNX on this way
    with _one_at_a_time, _activate(Job(self, request, source)):
        return original(self, model)


def _request(exporter: Exporter) -> Request | None:
    """What to do with the export, or None if it is not ours.

    Raises:
        OptionError: our options were given for an export that has none of them, or are impossible together.
    """
    chosen = current()
    name = str(exporter.args.format).lower()
    profile = PROFILES.get(name)
    quantize = 8 if name == "edgetpu" and exporter.args.quantize is None else exporter.args.quantize
    if profile is None or quantize != 8:
        if chosen.given():
            raise OptionError(
                f"{', '.join(f'{k}={v!r}' for k, v in chosen.given().items())} needs quantize=8 and one of the formats "
                f"{', '.join(PROFILES)}, but this is format={name!r}, quantize={exporter.args.quantize!r}"
            )
        return None
    exporter.args.quantize = quantize
    return resolve(profile, chosen)


def _check(exporter: Exporter, model: nn.Module) -> nn.Module | None:
    """Refuse what would fail later or give a wrong file; return the head if it decodes boxes.

    Raises:
        MissingToolError, UnsupportedModelError, OptionError, CalibrationError: see their texts.
    """
    from ultralytics.utils.torch_utils import is_qat

    from . import aware
    from .heads import detection_head

    args = exporter.args
    profile = PROFILES[str(args.format).lower()]
    require_packages(profile)
    if is_qat(model):
        raise UnsupportedModelError(
            f"this checkpoint was trained quantisation-aware and carries its own ranges, which format="
            f"{profile.format!r} cannot use; export the float checkpoint, or this one to format='onnx'"
        )
    head = detection_head(model)
    if head is None and current().head == "float":
        raise OptionError(f"head='float' needs a head that decodes boxes; this is a {model.task} model")
    if args.dynamic and profile.format != "openvino":
        raise OptionError(f"dynamic=True is not possible with format={profile.format!r}: its files have fixed shapes")
    if args.batch != 1 and not profile.batches:
        raise OptionError(
            f"batch={args.batch} is not possible with format={profile.format!r}: its files take one image"
        )
    if profile.format == "openvino" and current().head in {"int8", "raw"} and (args.dynamic or args.nms):
        raise OptionError(
            f"head={current().head!r} needs fixed shapes and no NMS in the file: leave dynamic= and nms=True out"
        )
    if args.nms and profile.format == "saved_model":
        raise OptionError("nms=True is not possible with INT8 .tflite files; leave it out, predict() does NMS")
    if args.nms is False and profile.format == "saved_model" and getattr(head, "one2one_cv2", None) is not None:
        raise OptionError(
            "nms=False is not possible with format='saved_model': one of its files is integer to the end, which "
            "NMS-free output does not survive; leave it out, or use format='tflite'"
        )
    if aware.quantization_of(model) is None:
        _check_data(args, model.task)
    else:
        _check_trained(model)
    return head


def _check_integers(request: Request, model: nn.Module) -> None:
    """Refuse a file that is to be in integers but could not be.

    Raises:
        UnsupportedModelError: the quantiser leaves one of the model's operators in float.
    """
    from torch.nn import LeakyReLU

    if request.head == "float" or request.profile.format == "openvino":
        return
    count = sum(isinstance(module, LeakyReLU) for module in model.modules())
    if count:
        raise UnsupportedModelError(
            f"head={request.head!r} is to be in integers, but ai-edge-quantizer leaves the {count} LeakyReLU of this "
            "model in float: use head='float', or swap them with yolo_edgequant.finetune(model, activation='relu6', …)"
        )


def _check_trained(model: nn.Module) -> None:
    """Refuse options that a model with trained ranges leaves no choice of.

    Raises:
        OptionError: there is one.
    """
    chosen = current()
    given = [name for name in ("ranges", "corrections", "precision", "min_retention") if getattr(chosen, name)]
    if given:
        raise OptionError(
            f"{given[0]}={getattr(chosen, given[0])!r} is not for a model that was trained quantisation-aware: its "
            "weights and ranges were trained for each other; leave it out"
        )


def _as_trained(request: Request, granularity: str) -> Request:
    """The request with the granularity that a model was trained with, where the format has it.

    Raises:
        OptionError: another was asked for.
    """
    if granularity not in request.profile.granularity:
        return request
    if current().granularity not in {None, granularity}:
        raise OptionError(
            f"granularity={current().granularity!r} but the model was trained with {granularity!r}; leave it out"
        )
    return replace(request, granularity=granularity)


def _check_data(args: Any, task: str) -> None:
    """Find the calibration images before any work, without fetching anything.

    Raises:
        CalibrationError: there are none.
    """
    from ultralytics.data.utils import check_cls_dataset, check_det_dataset

    if not args.data:
        raise CalibrationError(
            "INT8 export needs images to calibrate on: pass data='your.yaml' (100 or more, of the deployment's kind)"
        )
    split = args.split or "val"
    try:
        if task == "classify":
            if not Path(args.data).is_dir():
                raise FileNotFoundError(f"folder '{args.data}' not found")
            check_cls_dataset(args.data, split=split)
        else:
            check_det_dataset(args.data, autodownload=False, split=split)
    except (FileNotFoundError, SyntaxError) as error:
        reason = " ".join(str(error).split())
        raise CalibrationError(f"no calibration images: data={str(args.data)!r}, split={split!r}: {reason}") from error


def torch_safe_load(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """``torch_safe_load``, which says what a checkpoint that was trained quantisation-aware needs.

    Raises:
        MissingToolError: it was, and ModelOpt, with which upstream reads it, is not installed.
    """
    checkpoint, file = original(*args, **kwargs)
    if checkpoint.get("modelopt") and find_spec("modelopt") is None:
        raise MissingToolError(
            f"'{file}' was trained quantisation-aware (quantize=8), and reading it needs nvidia-modelopt; its ranges "
            "cannot be used here: train without quantize=8 and export that checkpoint"
        )
    return checkpoint, file
