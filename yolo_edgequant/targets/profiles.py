"""What each export format can hold, and the defaults that give its best accuracy."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

from ..errors import MissingToolError, OptionError
from ..options import ExportOptions


@dataclass(frozen=True)
class Profile:
    """An export format as a quantisation target. The first entry of each tuple is the default.

    Attributes:
        format: Ultralytics' name of the format.
        head: kinds of Head #3 that the format can hold.
        granularity: of the weights' scales.
        ranges: estimators to choose from.
        io: types of the file's input.
        corrections: what can be corrected.
        precision: of the layers.
        channels_last: images are NHWC in the file, else NCHW.
        batches: a batch size over 1 is possible.
        separate: with head="int8", mask coefficients and angles have an output and a scale of their own.
        extra: name of the extra that installs what the format needs.
        packages: what it needs, by import name.
        verify: whether the file is compared with the float model.
    """

    format: str
    head: tuple[str, ...]
    granularity: tuple[str, ...]
    ranges: tuple[str, ...]
    io: tuple[str, ...]
    corrections: tuple[str, ...]
    precision: tuple[str, ...]
    channels_last: bool
    batches: bool
    separate: bool
    extra: str
    packages: tuple[str, ...]
    verify: tuple[bool, ...] = (True, False)


_ESTIMATORS = ("activation", "mse", "percentile", "minmax", "auto")
_MIN_RETENTION = 0.99
_CORRECTIONS = ("all", "bias", "cells", "equalization", "none")
_LITERT = ("litert_torch", "ai_edge_litert", "ai_edge_quantizer")
_TENSORFLOW = ("tensorflow", "tf_keras", "onnx2tf", "onnx_graphsurgeon", "onnx", "onnxruntime", "onnxslim", *_LITERT)

PROFILES: dict[str, Profile] = {
    profile.format: profile
    for profile in (
        Profile(
            format="litert",
            head=("float", "int8", "raw"),
            granularity=("channel", "tensor"),
            ranges=_ESTIMATORS,
            io=("float",),
            corrections=_CORRECTIONS,
            precision=("int8", "auto"),
            channels_last=False,
            batches=True,
            separate=True,
            extra="litert",
            packages=_LITERT,
        ),
        Profile(
            format="tflite",
            head=(
                "int8",
                "float",
                "raw",
            ),  # integer by default: NXP's and Coral's accelerators have no float arithmetic
            granularity=("channel", "tensor"),
            ranges=_ESTIMATORS,
            io=("int8", "uint8", "float"),
            corrections=_CORRECTIONS,
            precision=("int8", "auto"),
            channels_last=True,
            batches=False,
            separate=True,
            extra="litert",
            packages=_LITERT,
        ),
        Profile(
            format="edgetpu",
            head=("int8", "float", "raw"),
            granularity=("channel", "tensor"),
            ranges=_ESTIMATORS,
            io=("int8", "uint8"),
            corrections=_CORRECTIONS,
            precision=("int8",),
            channels_last=True,
            batches=False,
            separate=True,
            extra="litert",
            packages=_LITERT,
        ),
        Profile(
            format="saved_model",
            head=("float", "int8"),
            granularity=("channel", "tensor"),
            ranges=_ESTIMATORS,
            io=("int8", "uint8"),  # of the full-integer file; the folder also has its float-input twin
            corrections=_CORRECTIONS,
            precision=("int8",),
            channels_last=True,
            batches=False,
            separate=False,
            extra="tensorflow",
            packages=_TENSORFLOW,
        ),
        Profile(
            format="openvino",
            head=("float", "int8", "raw"),
            granularity=("channel",),  # OpenVINO's kernels take per-channel weights at no cost
            ranges=("nncf",),  # NNCF estimates its own
            io=("float",),
            corrections=("nncf",),  # its own, bias correction among them
            precision=("int8", "auto"),
            channels_last=False,
            batches=True,
            separate=False,
            extra="openvino",
            packages=("openvino", "nncf"),
        ),
    )
}


@dataclass(frozen=True)
class Request:
    """An INT8 export with every choice made.

    Attributes:
        profile: the target.
        head, granularity, ranges, io, corrections, precision, min_retention, verify: as in
            :class:`~yolo_edgequant.options.ExportOptions`, none of them None.
    """

    profile: Profile
    head: str
    granularity: str
    ranges: str
    io: str
    corrections: str
    precision: str
    min_retention: float
    verify: bool


def require_packages(profile: Profile) -> None:
    """Stop before any work if something that the format needs is not installed.

    Raises:
        MissingToolError: naming what is missing and the extra that installs it.
    """
    missing = [name for name in profile.packages if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingToolError(
            f"format={profile.format!r} needs {', '.join(missing)}; "
            f"install with: pip install 'yolo-edgequant[{profile.extra}]'"
        )


def resolve(profile: Profile, options: ExportOptions) -> Request:
    """Fill the options that were left open with the profile's defaults.

    Raises:
        OptionError: an option has a value that the format cannot hold.
    """
    chosen: dict[str, Any] = {}
    for name in ("head", "granularity", "ranges", "io", "corrections", "precision", "verify"):
        allowed: tuple[Any, ...] = getattr(profile, name)
        value = getattr(options, name)
        if value is not None and value not in allowed:
            raise OptionError(
                f"{name}={value!r} is not possible with format={profile.format!r}, which takes "
                f"{' or '.join(map(repr, allowed))}"
            )
        chosen[name] = allowed[0] if value is None else value
    if options.min_retention is not None and chosen["precision"] != "auto":
        raise OptionError(f"min_retention={options.min_retention!r} needs precision='auto'")
    return Request(profile, **chosen, min_retention=options.min_retention or _MIN_RETENTION)
