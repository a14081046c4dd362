"""The way to a finished file, the same for both families: choose the precision, quantize, check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..contract import Contract
from ..options import Precision
from ..targets.formats import Request
from ..verification.self_check import self_check
from . import mixed_precision
from .int8_build import Int8Build, M


@dataclass(frozen=True)
class Search:
    """What ``precision="auto"`` needs beside the model.

    Attributes:
        evaluate: mAP50-95 of a file on the calibration images, 0 to 1; 0 where these have no labels.
        report: where to write the ranking and the trials, as JSON and, with the suffix changed, as PNG.
    """

    evaluate: Callable[[Path], float]
    report: Path


def finish(build: Int8Build[M], request: Request, search: Search) -> tuple[M, Contract]:
    """Quantize a model as a request asks for it, and check the result.

    Returns:
        The INT8 model, and its contract with what was chosen and seen.

    Raises:
        DataError: ``precision="auto"`` without images held back, or without labels.
        RecipeError: a rule matched nothing.
        VerificationError: the model finds other objects than the float model.
    """
    contract, in_float = build.contract, []
    if request.precision == Precision.AUTO:
        in_float, kept = mixed_precision.choose(build, search.evaluate, request.min_retention, search.report)
        contract = replace(contract, in_float=kept)
    model: Any = build.corrected(build.quantize(in_float), in_float)
    if request.verify and build.holdout:
        verified = self_check(build.compare(model), lambda: build.worst_tensor(model))
        contract = replace(contract, verified=verified)
    return model, contract
