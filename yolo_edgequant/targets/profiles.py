"""What each export format can hold, and the defaults that give its best accuracy."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import OptionError
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
        channels_last: images are NHWC in the file, else NCHW.
        batches: a batch size over 1 is possible.
    """

    format: str
    head: tuple[str, ...]
    granularity: tuple[str, ...]
    ranges: tuple[str, ...]
    io: tuple[str, ...]
    channels_last: bool
    batches: bool


_ESTIMATORS = ("activation", "mse", "percentile", "minmax")

PROFILES: dict[str, Profile] = {
    profile.format: profile
    for profile in (
        Profile("litert", ("float", "int8", "raw"), ("channel", "tensor"), _ESTIMATORS, ("float",), False, True),
        # integer from end to end by default: NXP's and Coral's accelerators have no float arithmetic
        Profile(
            "tflite",
            ("int8", "float", "raw"),
            ("channel", "tensor"),
            _ESTIMATORS,
            ("int8", "uint8", "float"),
            True,
            False,
        ),
        Profile(
            "edgetpu", ("int8", "float", "raw"), ("channel", "tensor"), _ESTIMATORS, ("int8", "uint8"), True, False
        ),
        # io names the full-integer file; the directory also has its float-input twin
        Profile("saved_model", ("float", "int8"), ("channel", "tensor"), _ESTIMATORS, ("int8", "uint8"), True, False),
        # NNCF estimates its own ranges, and OpenVINO's CPU kernels take per-channel weights at no cost
        Profile("openvino", ("float", "int8", "raw"), ("channel",), ("nncf",), ("float",), False, True),
    )
}


@dataclass(frozen=True)
class Request:
    """An INT8 export with every choice made.

    Attributes:
        profile: the target.
        head, granularity, ranges, io: as in :class:`~yolo_edgequant.options.ExportOptions`, none of them None.
    """

    profile: Profile
    head: str
    granularity: str
    ranges: str
    io: str


def resolve(profile: Profile, options: ExportOptions) -> Request:
    """Fill the options that were left open with the profile's defaults.

    Raises:
        OptionError: an option has a value that the format cannot hold.
    """
    chosen: dict[str, str] = {}
    for name in ("head", "granularity", "ranges", "io"):
        allowed: tuple[str, ...] = getattr(profile, name)
        value = getattr(options, name)
        if value is not None and value not in allowed:
            raise OptionError(
                f"{name}={value!r} is not possible with format={profile.format!r}, which takes "
                f"{' or '.join(map(repr, allowed))}"
            )
        chosen[name] = value or allowed[0]
    return Request(profile, **chosen)
