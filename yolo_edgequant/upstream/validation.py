"""What Ultralytics' validation says of a model or a file: mAP50-95, and what it found in each image."""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ultralytics import YOLO

from .image_statistics import ImageStatistics, joined


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


@dataclass(frozen=True)
class Validation:
    """What a validation found.

    Attributes:
        map, map50: mAP50-95 and mAP50 of the task's own output, 0 to 1.
        images: what was found in each image; None for tasks without boxes.
    """

    map: float
    map50: float
    images: ImageStatistics | None


def validate(model: YOLO | str | Path, data: str | Path, task: str | None = None, **arguments: Any) -> Validation:
    """Validate a model or an exported file, and keep what was found in each image.

    Args:
        model, data, task: as in :func:`accuracy`.
        arguments: Ultralytics' own, of ``val``.
    """
    loaded = model if isinstance(model, YOLO) else YOLO(model, task=task)
    files: list[str] = []
    images: list[dict[str, np.ndarray]] = []
    validator = loaded._smart_load("validator")
    if hasattr(validator, "_process_batch"):
        validator = _recording(validator, files, images)
    with contextlib.redirect_stdout(io.StringIO()), _left_as_it_is(loaded):
        metrics = loaded.val(validator=validator, data=str(data), plots=False, verbose=False, **arguments)
    results = metrics.results_dict
    return Validation(main_map(results), main_map50(results), joined(files, images) if images else None)


def _recording(validator: type[Any], files: list[str], images: list[dict[str, np.ndarray]]) -> type[Any]:
    """A validator that also notes what it found in each image."""

    class Recording(validator):
        def update_metrics(self, preds: list[dict[str, Any]], batch: dict[str, Any]) -> None:
            boxes = [pred["bboxes"].cpu().numpy().copy() for pred in preds]  # it may scale them in place
            super().update_metrics(preds, batch)
            stats = self.metrics.stats
            hits = next(stats[key] for key in ("tp_m", "tp_p", "tp") if key in stats)
            for number, (file, of_image) in enumerate(zip(batch["im_file"], boxes, strict=True), -len(boxes)):
                files.append(Path(file).name)
                values = {"scores": "conf", "classes": "pred_cls", "label_classes": "target_cls"}
                found_in = {name: np.asarray(stats[key][number]) for name, key in values.items()}
                images.append({"hits": np.asarray(hits[number]), "boxes": of_image, **found_in})

    return Recording


@contextlib.contextmanager
def _left_as_it_is(model: YOLO) -> Iterator[None]:
    """Validate a copy of a model in PyTorch: before 8.4.140 validation folded batch-norm in the very model."""
    module = model.model
    model.model = copy.deepcopy(module)
    try:
        yield
    finally:
        model.model = module
