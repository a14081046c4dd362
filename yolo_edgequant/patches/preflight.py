"""What is refused before any work, because it would fail later or give a wrong file."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn
from ultralytics.engine.exporter import Exporter

from ..errors import OptionError, UnsupportedModelError
from ..log import LOGGER
from ..options import Granularity, Head, current
from ..targets.devices import device
from ..targets.formats import PROFILES, Format, Request, require_packages, resolve
from ..training.fake_quantization import quantization_of
from ..upstream import compat, data, heads
from . import REGISTRY


def request_of(exporter: Exporter) -> Request | None:
    """What to do with an export, or None if it is not ours.

    Raises:
        OptionError: our options were given for an export that has none of them, or are impossible together.
        UnsupportedVersionError: this Ultralytics lacks what the format needs.
    """
    options = current()
    name = str(exporter.args.format).lower()
    profile = PROFILES.get(name)
    args = exporter.args
    if name == Format.EDGETPU and compat.has_no_precision(args):
        compat.set_int8(args)
    if profile is None or not compat.is_int8(args):
        if given := ", ".join(f"{k}={v!r}" for k, v in options.given().items()):
            raise OptionError(
                f"{given} needs quantize=8 and one of the formats {', '.join(PROFILES)}, but this is format={name!r}, "
                f"{compat.precision(args)}"
            )
        return None
    REGISTRY.require(name, f"format={name!r} in INT8")
    if options.target is not None:
        target = device(options.target)
        target.format(name)
        options = target.fill(options, profile)
    request = resolve(profile, options)
    if not REGISTRY.is_tested:
        LOGGER.warning(
            f"ultralytics {REGISTRY.version} is not among those that yolo_edgequant was tested with "
            f"({REGISTRY.tested}): all that this needs is there, and the file is compared with the float model"
        )
        request = replace(request, verify=True)
    return request


def check(args: Any, model: nn.Module, request: Request) -> nn.Module | None:
    """Refuse what would fail later or give a wrong file; return the head if it decodes boxes.

    Args:
        args: Ultralytics' arguments of the export.
        model: to be exported.
        request: what is to be made.

    Raises:
        MissingToolError: a package is missing.
        UnsupportedModelError: the model's ranges or head are not for this format.
        OptionError: arguments are impossible together.
        DataError: there are no calibration images.
    """
    profile = request.profile
    name = profile.format.value
    require_packages(profile)
    if compat.is_quantization_aware(model):
        raise UnsupportedModelError(
            f"this checkpoint was trained quantization-aware and carries its own ranges, which format="
            f"{name!r} cannot use; export the float checkpoint, or this one to format='onnx'"
        )
    head = heads.detection_head(model)
    if head is None and current().head == Head.FLOAT:
        raise OptionError(f"head='float' needs a head that decodes boxes; this is a {model.task} model")
    if args.dynamic and profile.format != Format.OPENVINO:
        raise OptionError(f"dynamic=True is not possible with format={name!r}: its files have fixed shapes")
    if args.batch != 1 and not profile.batches:
        raise OptionError(f"batch={args.batch} is not possible with format={name!r}: its files take one image")
    if profile.format == Format.OPENVINO and current().head in {Head.INT8, Head.RAW} and (args.dynamic or args.nms):
        raise OptionError(
            f"head={current().head!r} needs fixed shapes and no NMS in the file: leave dynamic= and nms=True out"
        )
    if args.nms and profile.format == Format.SAVED_MODEL:
        raise OptionError("nms=True is not possible with INT8 .tflite files; leave it out, predict() does NMS")
    end2end = getattr(head, "one2one_cv2", None) is not None
    if profile.format == Format.SAVED_MODEL and end2end and compat.is_nms_free(args):
        raise OptionError(
            "nms=False is not possible with format='saved_model': one of its files is integer to the end, which "
            "NMS-free output does not survive; leave it out, or use format='tflite'"
        )
    if quantization_of(model) is None:
        args.data = data.for_calibration(args.data, args.split or "val", model.task)
    else:
        _check_trained()
    return head


def check_integers(request: Request, model: nn.Module) -> None:
    """Refuse a file that is to be in integers but could not be.

    Raises:
        UnsupportedModelError: the quantizer leaves one of the model's operators in float.
    """
    if request.head == Head.FLOAT or request.profile.format == Format.OPENVINO:
        return
    count = sum(isinstance(module, nn.LeakyReLU) for module in model.modules())
    if count:
        raise UnsupportedModelError(
            f"head={request.head!r} is to be in integers, but ai-edge-quantizer leaves the {count} LeakyReLU of this "
            "model in float: use head='float', or swap them with yolo_edgequant.finetune(model, activation='relu6', …)"
        )


def as_trained(request: Request, granularity: str) -> Request:
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
    return replace(request, granularity=Granularity(granularity))


def _check_trained() -> None:
    """Refuse options that a model with trained ranges leaves no choice of.

    Raises:
        OptionError: there is one.
    """
    options = current()
    given = [name for name in ("ranges", "corrections", "precision", "min_retention") if getattr(options, name)]
    if given:
        raise OptionError(
            f"{given[0]}={getattr(options, given[0])!r} is not for a model that was trained quantization-aware: its "
            "weights and ranges were trained for each other; leave it out"
        )
