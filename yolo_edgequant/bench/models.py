"""The models to measure, what on, and what their files should keep: read strictly from a TOML file.

Each table of the file is a model::

    [yolov8n]
    checkpoint = "weights/yolov8n.pt"   # beside the TOML file
    task = "detect"
    data = "coco/coco.yaml"             # beside the TOML file, too; or "shapes", which are drawn on the spot
    val = ["images/val", "images/more"] # to validate on these folders, and not on the YAML's
    fraction = 0.376                    # of the split to calibrate on
    stock = ["tflite"]                  # Ultralytics' own exports, beside

    [yolov8n.keeps]                     # format.head.granularity = least per cent of FP32's mAP50-95
    tflite.float.channel = 98.5
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..demo.dataset import TASKS
from ..errors import ModelsFileError, OptionError
from ..options import Granularity, Head
from ..strict_table import StrictTable, tomllib
from .run import FORMATS, Row, cases

#: What `data` says for images that are drawn on the spot.
DRAWN = "shapes"
#: A name that a page has another use for.
RESERVED = "all"


@dataclass(frozen=True)
class Entry:
    """A model to measure.

    Attributes:
        name: of the entry.
        checkpoint: the file.
        task: of the model, one of those with boxes.
        data: data set's YAML; None for images that are drawn for the task.
        rows: the files to make, :attr:`Row.keeps` set but for Ultralytics' own.
        val: folders of validation images in place of the YAML's, as paths in the data set; empty to leave it.
        calibration_split, fraction: what to calibrate on, and which share of it.
        imgsz: (height, width) of the input.
        nms_free: take the NMS-free output of YOLO26 and YOLOv10, FP32 included.
        is_optional: to be left out, and not an error, where its files are not there.
    """

    name: str
    checkpoint: Path
    task: str
    data: Path | None
    rows: tuple[Row, ...]
    val: tuple[str, ...] = ()
    calibration_split: str = "train"
    fraction: float = 1.0
    imgsz: tuple[int, int] = (640, 640)
    nms_free: bool = False
    is_optional: bool = False

    @property
    def missing(self) -> Path | None:
        """The first of its files that is not there."""
        files = (self.checkpoint, *([] if self.data is None else [self.data]))
        return next((file for file in files if not file.is_file()), None)


def read(path: Path) -> tuple[Entry, ...]:
    """The models of a TOML file, in its order.

    Args:
        path: the file; the files that it names are relative to its folder.

    Raises:
        ModelsFileError: it is not there, is no TOML, is empty, or has an unknown or missing key or a wrong value.
    """
    if not path.is_file():
        raise ModelsFileError(f"models '{path}' not found (looked in {Path.cwd()})")
    try:
        top = StrictTable(path.name, tomllib.loads(path.read_text(encoding="utf-8")))
        entries = tuple(_entry(name, top.below(name), path.parent) for name in top.values)
    except ValueError as error:  # of TOML, of its encoding, of ours; OptionError is one, too
        reason = str(error) if str(error).startswith(path.name) else f"{path.name}: {error}"
        raise ModelsFileError(" ".join(reason.split())) from error
    if not entries:
        raise ModelsFileError(f"{path.name} names no model")
    return entries


def only(entries: Sequence[Entry], names: Sequence[str]) -> tuple[Entry, ...]:
    """The entries of these names; all without any.

    Raises:
        OptionError: there is none of a name.
    """
    known = [entry.name for entry in entries]
    for name in names:
        if name not in known:
            raise OptionError(f"--only {name!r} is not one of {', '.join(known)}")
    return tuple(entry for entry in entries if not names or entry.name in names)


def present(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """The entries whose files are there; an optional one may be without.

    Raises:
        ModelsFileError: a file is missing of an entry that is not optional.
    """
    for entry in entries:
        if entry.missing is not None and not entry.is_optional:
            raise ModelsFileError(
                f"{entry.name}: '{entry.missing}' not found; paths are relative to the TOML file, and "
                "'optional = true' leaves the model out where its files are missing"
            )
    return tuple(entry for entry in entries if entry.missing is None)


def _entry(name: str, table: StrictTable, folder: Path) -> Entry:
    if name == RESERVED or not re.fullmatch(r"[\w.-]+", name):
        raise ValueError(f"{table.where}: a name has letters, digits, '-', '_' and '.' alone, and is not {RESERVED!r}")
    data, val = table.text("data"), table.optional("val", table.texts) or ()
    if data == DRAWN and val:
        raise ValueError(f"{table.where}: 'val' is for folders of a data set, and {DRAWN!r} are drawn")
    keeps = list(_keeps(table.below("keeps")))
    if not keeps:
        raise ValueError(f"{table.where}, keeps: no file is named, as in 'tflite.float.channel = 98.5'")
    stock = tuple(table.among(one, FORMATS, "stock") for one in table.optional("stock", table.texts) or ())
    formats = list(dict.fromkeys([*stock, *(row.format for row in keeps)]))
    rows = [[Row(one, "stock")] * (one in stock) + [row for row in keeps if row.format == one] for one in formats]
    entry = Entry(
        name=name,
        checkpoint=folder / table.text("checkpoint"),
        task=table.choice("task", TASKS),
        data=None if data == DRAWN else folder / data,
        rows=tuple(row for of_format in rows for row in of_format),
        val=val,
        calibration_split=table.optional("calibration_split", table.text) or "train",
        fraction=table.optional("fraction", lambda key: _share(table, key)) or 1.0,
        imgsz=table.optional("imgsz", lambda key: _size(table, key)) or (640, 640),
        nms_free=table.optional("nms_free", table.flag) or False,
        is_optional=table.optional("optional", table.flag) or False,
    )
    table.end()
    return entry


def _keeps(formats: StrictTable) -> Iterator[Row]:
    """The rows of a table ``format.head.granularity = per cent``."""
    for format in formats.values:
        formats.among(format, FORMATS, "format")
        heads = formats.below(format)
        for head in heads.values:
            heads.among(head, tuple(map(str, Head)), "head")
            granularities = heads.below(head)
            for granularity in granularities.values:
                granularities.among(granularity, tuple(map(str, Granularity)), "granularity")
                wanted = "a number of per cent, 0 to 100"
                least = granularities.taken(granularity, wanted, lambda v: type(v) in {int, float} and 0 <= v <= 100)
                try:
                    (row,) = cases([format], [head], [granularity], [], baseline=False)
                except OptionError as error:
                    raise ValueError(f"{granularities.where}, {granularity}: {error}") from error
                yield replace(row, keeps=least / 100)


def _share(table: StrictTable, key: str) -> float:
    return float(table.taken(key, "above 0 and at most 1", lambda v: type(v) in {int, float} and 0 < v <= 1))


def _size(table: StrictTable, key: str) -> tuple[int, int]:
    """``640`` or ``[480, 640]`` as (height, width)."""

    def sides(value: Any) -> list[Any]:
        return value if isinstance(value, list) else [value, value]

    wanted = "a positive whole number or a list of two, height and width"
    value = table.taken(key, wanted, lambda v: len(sides(v)) == 2 and all(type(n) is int and n > 0 for n in sides(v)))
    height, width = sides(value)
    return height, width
