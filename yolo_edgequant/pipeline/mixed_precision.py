"""``precision="auto"``: keep as few layers in float as the asked retention needs, judged on the calibration images."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from ..contract import InFloat
from ..errors import DataError
from ..log import LOGGER
from ..processes import usable_threads
from ..runtime.interpreter import latency, open_file
from . import sensitivity, sensitivity_report
from .int8_build import Int8Build
from .sensitivity import Trial


def choose(
    build: Int8Build[Any], evaluate: Callable[[Path], float], least: float, report: Path
) -> tuple[list[str], InFloat]:
    """Rank the layers by what each costs alone, then keep the costliest in float until the retention is reached.

    Args:
        build: the model.
        evaluate: mAP50-95 of a file on the calibration images, 0 to 1.
        least: retention to reach, 0 to 1.
        report: where to write the ranking and the trials, as JSON and, with the suffix changed, as PNG.

    Returns:
        The layers that stay in float, and what to note of them in the file's contract.

    Raises:
        DataError: the calibration images have no labels, or none was held back.
    """
    if not build.holdout:
        raise DataError("precision='auto' needs 8 calibration images or more, some to measure the layers on")
    LOGGER.info(f"measuring {len(build.layers)} layers, each alone in 8 bits")
    ranked = sensitivity.rank(track(build.layers, "measuring layers", transient=True), build.noise)

    def costliest(count: int) -> list[str]:
        return [cost.layer for cost in ranked[:count]]

    with tempfile.TemporaryDirectory() as work:

        def saved(model: Any) -> Path:
            return build.save(model, Path(tempfile.mkdtemp(dir=work)))

        float_map = evaluate(saved(None))
        if not float_map:
            raise DataError("precision='auto' measures mAP on the calibration images, which have no labels")

        def measure(count: int) -> Trial:
            in_float = costliest(count)
            file = saved(build.corrected(build.quantize(in_float), in_float))
            interpreter = open_file(file, usable_threads())
            milliseconds = latency(interpreter.bound(interpreter.input.stored(build.holdout[0])))
            trial = Trial(count, evaluate(file) / float_map, milliseconds)
            LOGGER.info(f"{count} layers in float: retention {trial.retention:.1%}, {trial.latency_ms:.1f} ms")
            return trial

        trials = sensitivity.search_fewest(len(ranked), measure, least)
    best = trials[-1]
    if best.retention < least:
        LOGGER.warning(
            f"min_retention={least} is out of reach: {trials[0].retention:.1%} with all layers in float, "
            f"{best.retention:.1%} with none, which is what the file has; head='float' or 'raw' may be worth more"
        )
    Console().print(sensitivity_report.ranking(ranked, best.in_float), sensitivity_report.trials(trials))
    sensitivity_report.save(ranked, trials, report)
    LOGGER.info(f"{best.in_float} of {len(ranked)} layers stay in float; see {report}")
    return costliest(best.in_float), InFloat(best.in_float, best.retention)
