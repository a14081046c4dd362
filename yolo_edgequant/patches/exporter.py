"""The export call: take our options, decide whether the export is ours, and hand it to the seam of its format."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from ultralytics.engine.exporter import Exporter
from ultralytics.engine.model import Model
from ultralytics.utils import LOGGER as UPSTREAM

from ..contract import Trained
from ..log import quiet
from ..options import NAMES, ExportOptions, Head, current, options
from ..targets.devices import Device, device
from ..targets.formats import Format, Request
from ..training.fake_quantization import quantization_of, without_fake_quantization
from ..upstream import compat
from . import device_check, preflight

# The converters trace through global state of torch, JAX and MLIR, so one export of ours runs at a time.
_one_at_a_time = threading.RLock()


@dataclass(frozen=True)
class ExportJob:
    """An INT8 export of ours under way; the exporter that does it carries it.

    Attributes:
        request: what is to be made.
        trained: the model with its fake quantization, if it was trained quantization-aware.
    """

    request: Request
    trained: nn.Module | None

    @property
    def trained_for(self) -> Trained | None:
        """What the model was trained quantization-aware for."""
        quantization = quantization_of(self.trained)
        return None if quantization is None else Trained(quantization.target, quantization.granularity)


def job_of(exporter: Exporter) -> ExportJob | None:
    """The INT8 export of ours that an exporter does; None for upstream's own."""
    return getattr(exporter, "edgequant_job", None)


def model_export(original: Callable[..., str], self: Model, **kwargs: Any) -> str:
    """``Model.export``, which takes our options besides its own."""
    ours = {name: kwargs.pop(name) for name in NAMES & kwargs.keys()}
    given = {name: value for name, value in ours.items() if value is not None}
    with options(**given) as in_force, quiet(kwargs.get("verbose") is False):
        if in_force.target is not None:
            kwargs = kwargs | for_target(self.overrides | kwargs, device(in_force.target))
        return original(self, **compat.export_arguments(kwargs))


def for_target(arguments: Mapping[str, Any], target: Device) -> dict[str, Any]:
    """What a target adds to the arguments of an export: its format and INT8, where they were left open."""
    added: dict[str, Any] = {}
    if arguments.get("format") is None:
        added["format"] = target.formats[0].value
    if all(arguments.get(name) in {None, False} for name in ("quantize", "int8", "half")):
        added["quantize"] = 8
    return added


def exporter_call(original: Callable[..., str], self: Exporter, model: nn.Module | None = None) -> str:
    """``Exporter.__call__``, which hands INT8 exports of our formats to our converters."""
    request = preflight.request_of(self)
    if request is None:
        return original(self, without_fake_quantization(model))
    head = preflight.check(self.args, model, request)
    quantization = quantization_of(model)
    if head is None:
        request = replace(request, head=Head.INT8)  # no boxes to keep apart
    if quantization is not None:
        request = preflight.as_trained(request, quantization.granularity)
        self.args.data = "none, the ranges were trained"  # or upstream falls back to a set of its own
    self.edgequant_job = ExportJob(request, None if quantization is None else model)
    model = without_fake_quantization(model)
    if request.target is not None:
        trained = ExportOptions() if quantization is None else ExportOptions(granularity=request.granularity)
        _check_device(self.args, model, request, current().merge(trained))
    preflight.check_integers(request, model)
    if request.profile.format in {Format.LITERT, Format.TFLITE, Format.EDGETPU}:
        # whichever release it is, upstream prepares a model for OpenVINO as it is, NMS-free branch included
        self.args.format = Format.OPENVINO.value
        compat.keep_nms_free(self.args, compat.is_nms_free(self.args))
    with _one_at_a_time, _printing_our_command(self):
        return original(self, model)


def _check_device(args: Any, model: nn.Module, request: Request, given: ExportOptions) -> None:
    """Say what will not go well on the target.

    Args:
        args: Ultralytics' arguments of the export.
        model: to be exported.
        request: what is to be made.
        given: options that were not the target's to choose: the user's, and what the model was trained with.

    Raises:
        UnsupportedModelError: the file would be of no use there.
    """
    target = device(request.target)
    sides = args.imgsz if isinstance(args.imgsz, (list, tuple)) else (args.imgsz,)
    findings = device_check.examine(
        model,
        target,
        (int(sides[0]), int(sides[-1])),
        given,
        request.profile.format.value,
        bool(args.dynamic),
        compat.is_nms_free(args),
    )
    device_check.enforce(findings, target)


@contextmanager
def _printing_our_command(exporter: Exporter) -> Iterator[None]:
    """Let the commands that upstream prints after an export begin with ours, where theirs cannot read the file."""

    def rewritten(record: logging.LogRecord) -> bool:
        contract = getattr(exporter, "edgequant_contract", None)
        if contract is not None and not contract.is_upstream and isinstance(record.msg, str):
            record.msg = record.msg.replace(" yolo predict ", " yolo-edgequant predict ").replace(
                " yolo val ", " yolo-edgequant val "
            )
        return True

    UPSTREAM.addFilter(rewritten)
    try:
        yield
    finally:
        UPSTREAM.removeFilter(rewritten)
