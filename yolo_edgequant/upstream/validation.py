"""mAP50-95 of a model or a file, by Ultralytics' validation."""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ultralytics import YOLO


def main_metric(names: Iterable[str]) -> str:
    """The mAP50-95 of the task's own output among the names of Ultralytics' metrics: of masks or keypoints, if any."""
    return [name for name in names if "mAP50-95" in name][-1]


def main_map(results: Mapping[str, Any]) -> float:
    """The task's own mAP50-95, 0 to 1, among Ultralytics' metrics by name."""
    return float(results[main_metric(results)])


def main_map50(results: Mapping[str, Any]) -> float:
    """The same for mAP50."""
    return float(results[main_metric(results).replace("50-95", "50")])


def accuracy(model: YOLO | str | Path, data: str | Path, task: str | None = None, **arguments: Any) -> float:
    """The task's own mAP50-95, 0 to 1, of a model or an exported file on a validation split.

    Args:
        model: a loaded model, or a file.
        data: data set YAML.
        task: of a file.
        arguments: Ultralytics' own, of ``val``.
    """
    loaded = model if isinstance(model, YOLO) else YOLO(model, task=task)
    with contextlib.redirect_stdout(io.StringIO()), _left_as_it_is(loaded):
        metrics = loaded.val(data=str(data), plots=False, verbose=False, **arguments)
    return main_map(metrics.results_dict)


@contextlib.contextmanager
def _left_as_it_is(model: YOLO) -> Iterator[None]:
    """Validate a copy of a model in PyTorch: before 8.4.140 validation folded batch-norm in the very model."""
    module = model.model
    model.model = copy.deepcopy(module)
    try:
        yield
    finally:
        model.model = module
