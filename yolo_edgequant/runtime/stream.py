"""The loop of ``yolo-edgequant run``: every image of a source, its objects, and how long it took."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import cv2
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ..files import atomic_write
from .annotate import annotate
from .detector import Detector
from .sources import count, images, is_video

_MOST_ROWS = 20


def stream(detector: Detector, source: str, save: Path | None, show: bool, console: Console) -> Table:
    """Run a detector on a source.

    Args:
        detector: to run.
        source: see :func:`.sources.images`.
        save: folder for the pictures with the objects drawn, and ``detections.json``; None to keep nothing.
        show: show each picture in a window, until q is pressed.
        console: for the progress bar.

    Returns:
        A table of the objects in each image (of a long source the first), and of the median times.

    Raises:
        InferenceError: nothing can be read from the source.
    """
    if save is not None:
        save.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    pictures = images(source)
    for name, image in track(pictures, f"running {source}", total=count(source), console=console, transient=True):
        detections = detector(image)
        rows.append({"image": name, "milliseconds": dict(detections.milliseconds), "objects": detections.as_dicts()})
        if save is None and not show:
            continue
        drawn = annotate(image, detections)
        if save is not None:
            target = save / (f"{name}.jpg" if is_video(source) else name)
            with atomic_write(target) as temporary:
                temporary.write_bytes(cv2.imencode(target.suffix, drawn)[1].tobytes())
        if show:
            cv2.imshow("yolo-edgequant", drawn)
            if cv2.waitKey(1 if is_video(source) else 0) & 0xFF == ord("q"):
                break
    if save is not None:
        with atomic_write(save / "detections.json") as temporary:
            temporary.write_text(json.dumps(rows, indent=1))
    return _table(rows)


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table("image", "objects", "letterbox ms", "inference ms", "decoding ms")
    for row in rows[:_MOST_ROWS]:
        names = Counter(item["name"] for item in row["objects"])
        table.add_row(row["image"], ", ".join(f"{n} {name}" for name, n in names.most_common()), *_times([row]))
    if len(rows) > _MOST_ROWS:
        table.add_row(f"… {len(rows) - _MOST_ROWS} more")
    table.add_section()
    table.add_row(f"median of {len(rows)}", f"{sum(len(row['objects']) for row in rows)} in all", *_times(rows))
    return table


def _times(rows: list[dict[str, Any]]) -> list[str]:
    spans = ("letterbox", "inference", "decoding")
    return [f"{median(row['milliseconds'][span] for row in rows):.2f}" for span in spans]
