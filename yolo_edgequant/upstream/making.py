"""From a calibrated float model to a finished INT8 ``.tflite`` file: what is open is chosen, the result checked."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CalibrationError, VerificationError
from ..files import whole
from ..targets.profiles import Request
from .export import Job

if TYPE_CHECKING:
    from ..pipeline import Calibrated
    from ..quantization.recipe import Rule
    from ..verification.agreement import Agreement, Run


class Making:
    """One INT8 file in the making.

    Args:
        job: the export.
        calibrated: the float model.
        held: images held back from calibration.
        head, io: of this file; a SavedModel's folder has several.
        metadata: of this file; what is chosen and seen is noted in it.
    """

    def __init__(
        self,
        job: Job,
        calibrated: Calibrated,
        held: list[np.ndarray],
        head: str,
        io: str,
        metadata: dict[str, Any],
    ) -> None:
        self.exporter, self.request = job.exporter, job.request
        self.calibrated, self.held, self.metadata = calibrated, held, metadata
        self._head, self._io, self._estimator = head, io, self.request.ranges
        self._reference: Run | None = None
        if self._estimator == "auto":
            self._choose_ranges()

    def quantise(self, in_float: Rule | None = None) -> bytes:
        """A file with some operations in float."""
        correct_bias = self.request.corrections in {"all", "bias"}
        return self.calibrated.quantise(
            self._head, self.request.granularity, self._io, self._estimator, correct_bias, in_float
        )

    def compare(self, content: bytes) -> Agreement:
        """How far a file agrees with the float model on the images held back."""
        from .. import pipeline
        from ..verification.agreement import compare

        if self._reference is None:
            self._reference = pipeline.run(self.calibrated.content, self.held)
        size = (int(self.exporter.imgsz[0]), int(self.exporter.imgsz[1]))
        return compare(self.metadata, size, self._reference, pipeline.run(content, self.held))

    def finished(self, in_float: Rule | None = None) -> bytes:
        """The file, compared with the float model.

        Raises:
            VerificationError: it finds other objects than the float model.
        """
        from ..verification import culprit

        content = self.quantise(in_float)
        if self.request.verify and self.held:
            blame = lambda: culprit.of_tflite(self.calibrated.content, content, self.held[0])  # noqa: E731
            judge(self.compare(content), self.metadata, blame)
        return content

    def _choose_ranges(self) -> None:
        """Take the estimator whose file agrees best.

        Raises:
            CalibrationError: no image could be held back to choose by.
        """
        from ultralytics.utils import LOGGER

        if not self.held:
            raise CalibrationError("ranges='auto' needs 8 calibration images or more, some to choose the ranges by")
        quality = {}
        for name in estimators(self.request):
            self._estimator = name
            quality[name] = self.compare(self.quantise()).quality
        self._estimator = max(quality, key=lambda name: quality[name])
        for name, value in quality.items():
            LOGGER.info(f"ranges={name!r}: agreement {value:.3f}{' (chosen)' if name == self._estimator else ''}")
        self.metadata["edgequant"]["ranges"] = self._estimator


def estimators(request: Request) -> list[str]:
    """Of the ranges: the one asked for, or with ``auto`` all there are."""
    return [name for name in request.profile.ranges if name != "auto"] if request.ranges == "auto" else [request.ranges]


def judge(found: Agreement, metadata: dict[str, Any], blame: Callable[[], tuple[str, float]]) -> None:
    """Log what a comparison with the float model found, and note it in the metadata.

    Raises:
        VerificationError: the model collapsed; `blame` names the tensor and what is left of its signal.
    """
    from ultralytics.utils import LOGGER

    if found.collapsed:
        tensor, left = blame()
        raise VerificationError(
            f"the INT8 model agrees with {found.detections:.0%} of its objects on {found.images} images held back from "
            f"calibration; most is lost in tensor '{tensor}', of whose signal {left:.0%} is left. Try other ranges= or "
            "head=, or more calibration images; verify=False writes the file all the same"
        )
    metadata["edgequant"]["verified"] = {
        "images": found.images,
        "objects": found.objects,
        "agreement": found.detections,
        "snr_db": found.snr_db,
    }
    objects = "no objects" if found.detections is None else f"{found.objects} objects, agreement {found.detections:.3f}"
    lowest = min(found.snr_db.items(), key=lambda item: item[1], default=None)
    noise = "" if lowest is None else f", lowest signal to noise {lowest[1]:.1f} dB ({lowest[0]})"
    LOGGER.info(f"self-check on {found.images} images held back: {objects}{noise}")


def write(path: Path, content: bytes, metadata: dict[str, Any]) -> None:
    """Write a ``.tflite`` file with its metadata appended as Ultralytics reads it."""
    with whole(path) as temporary:
        temporary.write_bytes(content)
        append_metadata(temporary, metadata)


def append_metadata(path: Path, metadata: dict[str, Any]) -> None:
    """Append metadata to a ``.tflite`` file."""
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.json", json.dumps(metadata))
