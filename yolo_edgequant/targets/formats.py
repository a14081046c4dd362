"""What each export format can hold, and the defaults that give its best accuracy."""

from __future__ import annotations

import importlib.util
import platform
from dataclasses import dataclass, replace
from typing import Any

from ..errors import MissingToolError, OptionError
from ..options import (
    IO,
    Choice,
    Corrections,
    ExportOptions,
    Granularity,
    Head,
    Outputs,
    Precision,
    RangeEstimator,
    Target,
)


class Format(Choice):
    """Ultralytics' names of the export formats that are ours in INT8."""

    LITERT = "litert"
    TFLITE = "tflite"
    EDGETPU = "edgetpu"
    SAVED_MODEL = "saved_model"
    OPENVINO = "openvino"


@dataclass(frozen=True)
class Profile:
    """An export format as a quantization target. The first entry of each tuple is the default.

    Attributes:
        format: the format.
        head: kinds of box decoding that the format can hold.
        granularity: of the weights' scales.
        ranges: estimators to choose from.
        io: types of the file's input; the default of a file with box decoding in float is ``float``, if it is there.
        corrections: what can be corrected.
        precision: of the layers.
        channels_last: images are NHWC in the file, else NCHW.
        batches: a batch size over 1 is possible.
        separate: with head="int8", mask coefficients, angles and keypoints can have an output and a scale of their own.
        extra: name of the extra that installs what the format needs.
        packages: what it needs, by import name.
        verify: whether the file is compared with the float model.
    """

    format: Format
    head: tuple[Head, ...]
    granularity: tuple[Granularity, ...]
    ranges: tuple[RangeEstimator, ...]
    io: tuple[IO, ...]
    corrections: tuple[Corrections, ...]
    precision: tuple[Precision, ...]
    channels_last: bool
    batches: bool
    separate: bool
    extra: str
    packages: tuple[str, ...]
    verify: tuple[bool, ...] = (True, False)

    @property
    def is_tflite(self) -> bool:
        """True for the formats whose files are ``.tflite``."""
        return self.format != Format.OPENVINO

    def outputs(self, head: Head) -> tuple[Outputs, ...]:
        """Arrangements of the outputs that a head can have, the default first."""
        if head == Head.RAW:
            maps = self.channels_last or not self.is_tflite  # else a map would be transposed to be one
            return (Outputs.LEVELS, Outputs.MERGED, *([Outputs.GRID] if maps else []))
        if head == Head.INT8 and self.separate:
            return (Outputs.SEPARATE, Outputs.SINGLE)
        return (Outputs.SINGLE,)


_MIN_RETENTION = 0.99
#: Systems and machines, as `platform` names them, that litert-converter has wheels for; litert-torch converts with it.
_CONVERTER_WHEELS = {("Linux", "x86_64"): "Linux x86-64", ("Darwin", "arm64"): "macOS arm64"}

_LITERT_PACKAGES = ("litert_torch", "ai_edge_litert", "ai_edge_quantizer")
_TENSORFLOW_PACKAGES = ("tensorflow", "tf_keras", "onnx2tf", "onnx_graphsurgeon", "onnx", "onnxruntime", "onnxslim")

_LITERT = Profile(
    format=Format.LITERT,
    head=(Head.FLOAT, Head.INT8, Head.RAW),
    granularity=(Granularity.CHANNEL, Granularity.TENSOR),
    ranges=(RangeEstimator.ACTIVATION, RangeEstimator.MINMAX),
    io=(IO.FLOAT,),
    corrections=(
        Corrections.ALL,
        Corrections.BIAS,
        Corrections.CELLS,
        Corrections.EQUALIZATION,
        Corrections.ROUNDING,
        Corrections.SCORES,
        Corrections.NONE,
    ),
    precision=(Precision.INT8, Precision.AUTO),
    channels_last=False,
    batches=True,
    separate=True,
    extra="litert",
    packages=_LITERT_PACKAGES,
)
_TFLITE = replace(
    _LITERT,
    format=Format.TFLITE,
    head=(Head.INT8, Head.FLOAT, Head.RAW),  # integer by default: NXP's and Coral's accelerators have no float
    io=(IO.INT8, IO.UINT8, IO.FLOAT),
    channels_last=True,
    batches=False,
)
_EDGETPU = replace(_TFLITE, format=Format.EDGETPU, io=(IO.INT8, IO.UINT8), precision=(Precision.INT8,))
_SAVED_MODEL = replace(
    _EDGETPU,
    format=Format.SAVED_MODEL,
    head=(Head.FLOAT, Head.INT8),  # io is of the full-integer file; the folder also has its twin with float input
    separate=False,
    extra="tensorflow",
    packages=(*_TENSORFLOW_PACKAGES, *_LITERT_PACKAGES),
)
_OPENVINO = replace(
    _LITERT,
    format=Format.OPENVINO,
    granularity=(Granularity.CHANNEL,),  # OpenVINO's kernels take per-channel weights at no cost
    ranges=(RangeEstimator.ACTIVATION, RangeEstimator.NNCF),
    corrections=(Corrections.ALL, Corrections.BIAS, Corrections.SCORES, Corrections.NONE),
    separate=False,
    extra="openvino",
    packages=("openvino", "nncf"),
)

PROFILES: dict[str, Profile] = {
    profile.format.value: profile for profile in (_LITERT, _TFLITE, _EDGETPU, _SAVED_MODEL, _OPENVINO)
}


@dataclass(frozen=True)
class Request:
    """An INT8 export with every choice made.

    Attributes:
        profile: the target.
        head, outputs, granularity, ranges, io, corrections, precision, min_retention, verify: as in
            :class:`~yolo_edgequant.options.ExportOptions`, none of them None.
        target: the device that the file is for; None if none was named.
    """

    profile: Profile
    head: Head
    outputs: Outputs
    granularity: Granularity
    ranges: RangeEstimator
    io: IO
    corrections: Corrections
    precision: Precision
    min_retention: float
    verify: bool
    target: Target | None = None

    def corrects(self, what: Corrections) -> bool:
        """True if this is one of the corrections asked for."""
        return self.corrections in {Corrections.ALL, what}


def converter_gap() -> str | None:
    """Why litert-converter cannot be installed on this platform, as a clause; None where it can."""
    system, machine = platform.system(), platform.machine()
    if (system, machine) in _CONVERTER_WHEELS:
        return None
    here = f"{'macOS' if system == 'Darwin' else system} {machine}"
    return f"litert-converter has wheels for {' and '.join(_CONVERTER_WHEELS.values())} alone, not for {here}"


def require_packages(profile: Profile) -> None:
    """Stop before any work if something that the format needs is not installed.

    Raises:
        MissingToolError: naming what is missing and the extra that installs it, or saying that nothing can.
    """
    gap = converter_gap() if profile.is_tflite else None
    if gap is not None and not (_is_installed("litert_torch") and _is_installed("litert_converter")):
        raise MissingToolError(
            f"format={profile.format.value!r} cannot be exported here: {gap}; export it on one of those, or "
            "format='openvino', which also works on Linux aarch64 and Windows"
        )
    missing = [name for name in profile.packages if not _is_installed(name)]
    if missing:
        raise MissingToolError(
            f"format={profile.format.value!r} needs {', '.join(missing)}; "
            f"install with: pip install 'yolo-edgequant[{profile.extra}]'"
        )


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def resolve(profile: Profile, options: ExportOptions) -> Request:
    """Fill the options that were left open with the profile's defaults.

    Raises:
        OptionError: an option has a value that the format cannot hold.
    """
    values: dict[str, Any] = {}
    for name in ("head", "granularity", "ranges", "io", "corrections", "precision", "verify"):
        allowed: tuple[Any, ...] = getattr(profile, name)
        value = getattr(options, name)
        if value is not None and value not in allowed:
            raise OptionError(
                f"{name}={value!r} is not possible with format={profile.format.value!r}, which takes "
                f"{' or '.join(map(repr, allowed))}"
            )
        values[name] = allowed[0] if value is None else value
    arrangements = profile.outputs(values["head"])
    if options.outputs is not None and options.outputs not in arrangements:
        raise OptionError(
            f"outputs={options.outputs!r} is not possible with format={profile.format.value!r}, "
            f"head={values['head']!r}, which takes {' or '.join(map(repr, arrangements))}"
        )
    values["outputs"] = arrangements[0] if options.outputs is None else options.outputs
    if options.io is None and values["head"] == Head.FLOAT and IO.FLOAT in profile.io:
        values["io"] = IO.FLOAT  # float at one end alone is what no reader expects
    if values["ranges"] == RangeEstimator.NNCF and values["corrections"] == Corrections.SCORES:
        raise OptionError("corrections='scores' needs ranges='activation': ranges='nncf' leaves corrections to NNCF")
    if options.min_retention is not None and values["precision"] != Precision.AUTO:
        raise OptionError(f"min_retention={options.min_retention!r} needs precision='auto'")
    return Request(profile, **values, min_retention=options.min_retention or _MIN_RETENTION, target=options.target)
