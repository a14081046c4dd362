"""Where a model's last points of mAP go: its INT8 file, and what sparing it some of its roundings would win."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ..errors import OptionError, UnsupportedModelError
from ..files import atomic_write
from ..patches.litert import export_and_keep
from ..pipeline.variants import Variant, variants
from ..targets.formats import Format
from ..upstream import data, heads
from ..upstream.models import YOLO, quiet
from ..upstream.validation import validate
from ..verification.bootstrap import Resampled

#: Formats whose files can be made in all these ways.
FORMATS = (Format.LITERT.value, Format.TFLITE.value)

AS_IT_IS = "the file as it is"


@dataclass(frozen=True)
class Row:
    """A way to make the file, and what it is worth.

    Attributes:
        name, kind: as :class:`..pipeline.variants.Variant` has them; kind is empty for the file as it is.
        map: mAP50-95, 0 to 1, objects of equal scores in the order of the images; Ultralytics leaves their order open.
        retention, retention_error: share of the float model's mAP50-95 that is kept, and its standard error.
        difference, difference_error: from the retention of the file as it is, and its own standard error; None for it.
    """

    name: str
    kind: str
    map: float
    retention: float
    retention_error: float
    difference: float | None = None
    difference_error: float | None = None


@dataclass(frozen=True)
class Settings:
    """What a table is of.

    Attributes:
        model: checkpoint.
        data: data set's YAML.
        format: one of :data:`FORMATS`.
        imgsz: (height, width) of the input.
        calibration_split, fraction: what to calibrate on.
        split: of the data set, to validate on.
        by_layer: also with each layer in float.
        options: of the export.
    """

    model: Path
    data: Path
    format: str
    imgsz: tuple[int, int]
    calibration_split: str = "train"
    fraction: float = 1.0
    split: str = "val"
    by_layer: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


def run(settings: Settings, console: Console) -> list[Row]:
    """Export a model and validate its file in all ways; the files are in a folder that does not stay.

    Args:
        settings: what the table is of.
        console: for a bar that shows how far this is, or a line for each file where that is no terminal.

    Returns:
        The file as it is first.

    Raises:
        OptionError: another format.
        UnsupportedModelError: it finds no boxes.
        DataError: there is no such data set or split, or the FP32 model finds nothing in it.
        RecipeError: the last convolutions were not found.
    """
    if settings.format not in FORMATS:
        raise OptionError(f"format {settings.format!r} is not one that sensitivity is for: {', '.join(FORMATS)}")
    float_model = YOLO(str(settings.model))
    if heads.detection_head(float_model.model) is None:
        raise UnsupportedModelError(f"sensitivity is for models that find boxes; this is a {float_model.task} model")
    data.check(settings.data, [settings.calibration_split, settings.split], float_model.task)
    validation = {"imgsz": max(settings.imgsz), "split": settings.split, "batch": 1, "rect": False, "workers": 1}
    console.print("validating the FP32 model")
    with quiet():
        resampled = Resampled(validate(float_model, settings.data, **validation).images)

    def measured(file: Path) -> np.ndarray:
        """The mAP50-95 of the images as they are, and of the draws."""
        with quiet():
            return resampled.maps(validate(file, settings.data, float_model.task, **validation).images)

    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copy(settings.model, folder)  # the export writes beside it
        path, build = export_and_keep(YOLO(copy), **_export_arguments(settings))
        console.print("validating the file as it is")
        as_it_is = measured(path)
        kept = resampled.retention(as_it_is)
        rows = [Row(AS_IT_IS, "", float(as_it_is[0]), kept.value, kept.error)]
        for variant in _shown(variants(build, settings.by_layer), console):
            place = Path(tempfile.mkdtemp(dir=folder))
            maps = measured(build.save(variant.make(), place))
            kept, more = resampled.retention(maps), resampled.difference(maps, as_it_is)
            figures = (float(maps[0]), kept.value, kept.error, more.value, more.error)
            rows.append(Row(variant.name, variant.kind, *figures))
    return rows


def _export_arguments(settings: Settings) -> dict[str, Any]:
    return {
        "format": settings.format,
        "quantize": 8,
        "data": str(settings.data.resolve()),
        "split": settings.calibration_split,
        "fraction": settings.fraction,
        "imgsz": list(settings.imgsz),
        **settings.options,
    }


def _shown(rows: Sequence[Variant], console: Console) -> Iterator[Variant]:
    """The variants one after the other, with a bar for how many are done, or a line for each."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("validating files", total=len(rows))
        for number, variant in enumerate(rows, 1):
            if not console.is_terminal:
                console.print(f"[{number}/{len(rows)}] {_KINDS[variant.kind]}: {variant.name}", markup=False)
            yield variant
            progress.advance(task)


_TITLES = ("8 bits", "part", "mAP50-95", "retention", "±", "difference", "±")
_KINDS = {"": "all", "alone": "alone", "in float": "all but", "not rounded": "all but, in the float graph"}


def table(rows: Sequence[Row]) -> Table:
    """A table to print with Rich."""
    table = Table(
        title="where the last points go",
        caption="± is one standard error; differences are from the file as it is, on the same images",
    )
    for title in _TITLES:
        table.add_column(title, justify="left" if title in _TITLES[:2] else "right")
    for row in rows:
        table.add_row(*_cells(row))
    return table


def markdown(rows: Sequence[Row]) -> str:
    """The same table for a page."""
    lines = ["| " + " | ".join(_TITLES) + " |", "| --- " * len(_TITLES) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(_cells(row)) + " |" for row in rows)])


def _cells(row: Row) -> tuple[str, ...]:
    more = ("-", "-")
    if row.difference is not None:
        more = (f"{100 * row.difference:+.2f}", f"{100 * (row.difference_error or 0):.2f}")
    kept = (f"{row.map:.4f}", f"{row.retention:.1%}", f"{100 * row.retention_error:.2f}")
    return (_KINDS[row.kind], row.name, *kept, *more)


def save(rows: Sequence[Row], path: Path) -> None:
    """Write the rows as JSON."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
