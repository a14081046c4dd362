"""What a user can ask of an export, beyond Ultralytics' own arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, fields
from typing import Any

from .errors import OptionError

#: Each option and its choices. None, the default of all, leaves the choice to the target's profile.
CHOICES: dict[str, tuple[Any, ...]] = {
    "head": ("int8", "float", "raw"),
    "granularity": ("channel", "tensor"),
    "ranges": ("minmax", "percentile", "mse", "activation", "auto"),
    "io": ("int8", "uint8", "float"),
    "corrections": ("all", "bias", "cells", "equalization", "none"),
    "precision": ("int8", "auto"),
    "verify": (True, False),
}


@dataclass(frozen=True)
class ExportOptions:
    """Options of an INT8 export.

    Attributes:
        head: arithmetic of Head #3, which turns the detection convolutions' outputs into boxes and scores: ``int8``,
            ``float`` (FP32 inside the same file) or ``raw`` (left to the host).
        granularity: one scale of the weights per output ``channel``, or one per ``tensor``.
        ranges: how the ranges of activations are estimated, see :mod:`.quantization.ranges`; ``auto`` takes the
            estimator that agrees best with the float model on images held back from calibration.
        io: type of the file's input, and of its outputs where they are quantised: ``int8``, ``uint8`` or ``float``.
        corrections: ``bias`` makes up for the mean error of rounded weights (:mod:`.quantization.bias`), ``cells``
            takes the ranges of boxes and the like from cells that may become detections (:mod:`.quantization.cells`);
            ``equalization`` evens out channels that share one scale of the weights (:mod:`.quantization.equalization`);
            ``all`` or ``none`` of these.
        precision: ``auto`` keeps as few layers in float as `min_retention` needs.
        min_retention: share of the float model's mAP50-95 on the calibration images that ``precision="auto"`` has to
            reach, above 0 and at most 1; 0.99 if left out.
        verify: compare the result with the float model on images held back from calibration, and refuse to write a
            file that does not find the same objects.

    Raises:
        OptionError: a value is not among its choices.
    """

    head: str | None = None
    granularity: str | None = None
    ranges: str | None = None
    io: str | None = None
    corrections: str | None = None
    precision: str | None = None
    min_retention: float | None = None
    verify: bool | None = None

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise OptionError(f"{name}={value!r} is not one of {', '.join(map(repr, choices))}")
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
        ...     chosen.head
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
