"""What a user can ask of an export, beyond Ultralytics' own arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, fields
from enum import Enum
from typing import Any

from .errors import OptionError


class Choice(str, Enum):
    """One of a few words, and that word itself as a text; Python's StrEnum is not in 3.10."""

    __str__ = str.__str__

    def __repr__(self) -> str:  # messages quote what the user wrote
        return repr(self.value)


class Head(Choice):
    """Arithmetic of box decoding, which turns the detection convolutions' outputs into boxes and scores."""

    INT8 = "int8"
    FLOAT = "float"
    RAW = "raw"


class Granularity(Choice):
    """What shares one scale of the weights."""

    CHANNEL = "channel"
    TENSOR = "tensor"


class RangeEstimator(Choice):
    """How the ranges of activations are estimated; see :mod:`.tflite.ranges` and :mod:`.openvino.ranges`."""

    ACTIVATION = "activation"
    MINMAX = "minmax"
    NNCF = "nncf"


class IO(Choice):
    """Type of a file's input, and of its outputs where they are quantized."""

    INT8 = "int8"
    UINT8 = "uint8"
    FLOAT = "float"


class Corrections(Choice):
    """What is corrected beside the ranges."""

    ALL = "all"
    BIAS = "bias"
    CELLS = "cells"
    EQUALIZATION = "equalization"
    ROUNDING = "rounding"
    SCORES = "scores"
    NONE = "none"


class Precision(Choice):
    """Of the layers: all in 8 bits, or some in float where the retention needs it."""

    INT8 = "int8"
    AUTO = "auto"


class Outputs(Choice):
    """How a file's outputs are arranged: the first three of ``head="raw"``, the others of decoded detections."""

    LEVELS = "levels"
    MERGED = "merged"
    GRID = "grid"
    SEPARATE = "separate"
    SINGLE = "single"


class Target(Choice):
    """Devices, and programs on them, that a profile is known of (:mod:`.targets.devices`)."""

    CORAL_EDGETPU = "coral-edgetpu"
    FRIGATE_EDGETPU = "frigate-edgetpu"
    NXP_IMX8MP = "nxp-imx8mp"
    NXP_IMX93 = "nxp-imx93"
    NXP_IMX95 = "nxp-imx95"
    AXIS_ARTPEC = "axis-artpec"
    RASPBERRYPI = "raspberrypi"
    ARM_CPU = "arm-cpu"
    INTEL_CPU = "intel-cpu"
    INTEL_GPU = "intel-gpu"
    INTEL_NPU = "intel-npu"
    GENERIC_INT8 = "generic-int8"


#: The options with a list of choices.
CHOICES: dict[str, type[Choice]] = {
    "head": Head,
    "outputs": Outputs,
    "granularity": Granularity,
    "ranges": RangeEstimator,
    "io": IO,
    "corrections": Corrections,
    "precision": Precision,
    "target": Target,
}


def choices(name: str) -> tuple[Any, ...]:
    """What a user can give an option."""
    return (True, False) if name == "verify" else tuple(CHOICES[name])


@dataclass(frozen=True)
class ExportOptions:
    """Options of an INT8 export. None, the default of all, leaves the choice to the target or the format.

    Attributes:
        head: arithmetic of box decoding: ``int8``, ``float`` (FP32 inside the same file) or ``raw`` (left to the host).
        outputs: how the outputs are arranged. With ``head="raw"``: ``levels``, a tensor (B, cells, C) for each branch
            and level; ``merged``, a tensor for each branch over the cells of all levels; or ``grid``, a map
            (B, rows, columns, C) for each branch and level. OpenVINO models have C before the cells. Else:
            ``separate``, mask coefficients, angles and keypoints in a tensor of their own; or ``single``, in one with
            boxes and scores.
        granularity: one scale of the weights per output ``channel``, or one per ``tensor``.
        ranges: how the ranges of activations are estimated: ``activation`` looks through SiLU and sigmoid, ``minmax``
            takes the extremes, ``nncf`` leaves an OpenVINO model's ranges and corrections to NNCF.
        io: type of the file's input, and of its outputs where they are quantized: ``int8``, ``uint8`` or ``float``.
        corrections: ``bias`` makes up for the mean error of rounded weights (:mod:`.tflite.bias_correction`), ``cells``
            takes the ranges of boxes and the like from cells that may become detections
            (:mod:`.tflite.candidate_cells`), ``equalization`` evens out channels that share one scale of the weights
            (:mod:`.tflite.equalization`), ``rounding`` rounds a layer's weights so that they make up for each other
            (:mod:`.tflite.rounding`), ``scores`` takes back what quantization does to the scores on average
            (:mod:`.level_shift`); ``all`` of these, `rounding` only with one scale a tensor; or ``none``. OpenVINO
            files have ``bias`` and ``scores``.
        precision: ``auto`` keeps as few layers in float as `min_retention` needs.
        min_retention: share of the float model's mAP50-95 on the calibration images that ``precision="auto"`` has to
            reach, above 0 and at most 1; 0.99 if left out.
        target: the device that the file is for. Its profile chooses what is left open here, the format included.
        verify: compare the result with the float model on images held back from calibration, and refuse to write a
            file that does not find the same objects.

    Raises:
        OptionError: a value is not among its choices.
    """

    head: Head | None = None
    outputs: Outputs | None = None
    granularity: Granularity | None = None
    ranges: RangeEstimator | None = None
    io: IO | None = None
    corrections: Corrections | None = None
    precision: Precision | None = None
    min_retention: float | None = None
    target: Target | None = None
    verify: bool | None = None

    def __post_init__(self) -> None:
        for name in (*CHOICES, "verify"):
            value = getattr(self, name)
            if value is None:
                continue
            if value not in choices(name) or (name == "verify") != isinstance(value, bool):
                raise OptionError(f"{name}={value!r} is not one of {', '.join(map(repr, choices(name)))}")
            object.__setattr__(self, name, CHOICES[name](value) if name in CHOICES else value)
        least = self.min_retention
        if least is not None and (isinstance(least, bool) or not isinstance(least, (int, float)) or not 0 < least <= 1):
            raise OptionError(f"min_retention={least!r} is not a number above 0 and at most 1")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> ExportOptions:
        """Build from a mapping.

        Raises:
            OptionError: a name is not an option, or a value not among its choices.
        """
        unknown = sorted(set(values) - NAMES)
        if unknown:
            raise OptionError(f"unknown option {unknown[0]!r}; options are {', '.join(sorted(NAMES))}")
        return cls(**values)

    def given(self) -> dict[str, Any]:
        """The options that were set, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def merge(self, other: ExportOptions) -> ExportOptions:
        """These options, with those set in `other` in their place."""
        return ExportOptions(**{**self.given(), **other.given()})


#: The options' names.
NAMES = frozenset(field.name for field in fields(ExportOptions))

_NONE = ExportOptions()
_current: ContextVar[ExportOptions] = ContextVar("yolo_edgequant_options", default=_NONE)


def current() -> ExportOptions:
    """The options in force in this thread or task."""
    return _current.get()


@contextmanager
def options(**values: Any) -> Iterator[ExportOptions]:
    """Set export options for the calls inside, for code whose ``model.export(...)`` cannot be changed.

    Contexts nest, the inner one winning; options given in the call itself win over both. They hold for the current
    thread only.

    Example:
        >>> with options(head="float") as chosen:
        ...     str(chosen.head)
        'float'

    Raises:
        OptionError: a name is not an option, or a value not among its choices.
    """
    merged = current().merge(ExportOptions.of(values))
    token = _current.set(merged)
    try:
        yield merged
    finally:
        _current.reset(token)
