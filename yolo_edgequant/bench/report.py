"""The rows of a bench as a table for people, and as JSON and CSV for programs."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from rich.table import Table

from ..files import atomic_write
from .run import Row

_OPTIONS = {"format", "head", "granularity", "ranges", "corrections"}
_COLUMNS = (
    ("format", "format", "{}"),
    ("head", "head", "{}"),
    ("granularity", "weights", "{}"),
    ("ranges", "ranges", "{}"),
    ("map", "mAP50-95", "{:.4f}"),
    ("map50", "mAP50", "{:.4f}"),
    ("retention", "retention", "{:.1%}"),
    ("retention_error", "±", "{:.2%}"),
    ("latency_ms", "latency ms", "{:.1f}"),
    ("size_mb", "size MB", "{:.2f}"),
    ("export_s", "export s", "{:.1f}"),
    ("peak_mb", "peak MB", "{:.0f}"),
)
_SCORES = (
    ("f1_float", "F1 of FP32", "{:.4f}"),
    ("f1", "F1", "{:.4f}"),
    ("threshold_shift", "best threshold", "{:+.3f}"),
    ("score_change", "an object's score", "{:+.3f}"),
)
_ON_REQUEST = (("image_ms", "image to boxes ms", "{:.1f}"), ("decoding_ms", "decoding ms", "{:.2f}"))


def table(rows: Sequence[Row]) -> Table:
    """A table to print with Rich."""
    table = Table(title="INT8 against FP32 of the same run")
    columns = _columns(rows)
    for name, title, _ in columns:
        table.add_column(title, justify="left" if name in _OPTIONS else "right")
    for row in rows:
        table.add_row(*_cells(row, columns), style="red" if row.error else "dim" if row.head == "stock" else None)
    return table


def scores(rows: Sequence[Row]) -> Table | None:
    """A second table: whether the scores still mean what the FP32 model's do; None without such figures."""
    rows = [row for row in rows if row.f1 is not None]
    if not rows:
        return None
    table = Table(
        title="scores: F1 at FP32's best threshold, and what changed",
        caption="F1 at an overlap of 0.5, mean of classes",
    )
    columns = (*_COLUMNS[:4], *_SCORES)
    for name, title, _ in columns:
        table.add_column(title, justify="left" if name in _OPTIONS else "right")
    for row in rows:
        table.add_row(*_cells(row, columns), style="dim" if row.head == "stock" else None)
    return table


def line(row: Row) -> str:
    """A filled row as one line, for a log."""
    cells = zip(_COLUMNS, _cells(row, _COLUMNS), strict=True)
    return "  " + ", ".join(
        text if name in _OPTIONS else f"{title} {text}" for (name, title, _), text in cells if text != "-"
    )


def markdown(rows: Sequence[Row]) -> str:
    """The same tables for a README."""
    scored = [row for row in rows if row.f1 is not None]
    tables = [(rows, _columns(rows)), *([(scored, (*_COLUMNS[:4], *_SCORES))] if scored else [])]
    return "\n\n".join(_markdown(*table) for table in tables)


def _markdown(rows: Sequence[Row], columns: Sequence[tuple[str, str, str]]) -> str:
    lines = ["| " + " | ".join(title for _, title, _ in columns) + " |", "| --- " * len(columns) + "|"]
    lines += ["| " + " | ".join(_cells(row, columns)) + " |" for row in rows]
    return "\n".join(lines)


def _columns(rows: Sequence[Row]) -> tuple[tuple[str, str, str], ...]:
    """Field, title and format of each column; corrections only if some were left out, times if they were taken."""
    options, figures = _COLUMNS[:4], _COLUMNS[4:]
    if any(row.corrections not in {"-", "all"} for row in rows):
        options += (("corrections", "corrections", "{}"),)
    return options + figures + tuple(c for c in _ON_REQUEST if any(getattr(row, c[0]) is not None for row in rows))


def _cells(row: Row, columns: Sequence[tuple[str, str, str]]) -> list[str]:
    """A row's cells as text; an error marks the first figure that it cost."""
    cells = {name: "-" if (value := getattr(row, name)) is None else form.format(value) for name, _, form in columns}
    missing = [name for name in ("map", "latency_ms", "image_ms") if name in cells and getattr(row, name) is None]
    if row.error and missing:
        cells[missing[0]] = "failed"
    return list(cells.values())


def save(rows: Sequence[Row], folder: Path) -> tuple[Path, Path]:
    """Write ``bench.json`` and ``bench.csv``, and return their paths."""
    values = [asdict(row) for row in rows]
    as_json, as_csv = folder / "bench.json", folder / "bench.csv"
    with atomic_write(as_json) as temporary:
        temporary.write_text(json.dumps(values, indent=1) + "\n")
    with atomic_write(as_csv) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(values)
    return as_json, as_csv
