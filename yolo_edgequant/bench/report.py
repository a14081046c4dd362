"""The rows of a bench as a table for people, and as JSON and CSV for programs."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
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
_KEEPS = ("keeps", "should keep", "{:.1%}")
_SCORES = (
    ("f1_float", "F1 of FP32", "{:.4f}"),
    ("f1", "F1", "{:.4f}"),
    ("threshold_shift", "best threshold", "{:+.3f}"),
    ("score_change", "an object's score", "{:+.3f}"),
)
_SCORED = (*_COLUMNS[:4], *_SCORES)
_SCORES_TITLE = "scores: F1 at FP32's best threshold, and what changed"
_ON_REQUEST = (("image_ms", "image to boxes ms", "{:.1f}"), ("decoding_ms", "decoding ms", "{:.2f}"))


def table(rows: Sequence[Row]) -> Table:
    """A table to print with Rich."""
    return _table({"": rows}, _columns(rows))


def table_of_models(models: Mapping[str, Sequence[Row]]) -> Table:
    """One table for several models, by their names."""
    return _table(models, _columns([row for rows in models.values() for row in rows]), named=True)


def scores(rows: Sequence[Row]) -> Table | None:
    """A second table: whether the scores still mean what the FP32 model's do; None without such figures."""
    return _scores({"": rows}, named=False)


def scores_of_models(models: Mapping[str, Sequence[Row]]) -> Table | None:
    """The same for several models, by their names."""
    return _scores(models, named=True)


def _scores(models: Mapping[str, Sequence[Row]], named: bool) -> Table | None:
    scored = {name: [row for row in rows if row.f1 is not None] for name, rows in models.items()}
    if not any(scored.values()):
        return None
    table = _table(scored, _SCORED, named)
    table.title, table.caption = _SCORES_TITLE, "F1 at an overlap of 0.5, mean of classes"
    return table


def _table(models: Mapping[str, Sequence[Row]], columns: Sequence[tuple[str, str, str]], named: bool = False) -> Table:
    table = Table(title="INT8 against FP32 of the same run")
    if named:
        table.add_column("model")
    for name, title, _ in columns:
        table.add_column(title, justify="left" if name in _OPTIONS else "right")
    for model, rows in models.items():
        for row in rows:
            cells = ([model] if named else []) + _cells(row, columns)
            bad = row.error or row.is_short
            table.add_row(*cells, style="red" if bad else "dim" if row.head == "stock" else None)
        table.add_section()
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
    tables = [(rows, _columns(rows)), *([(scored, _SCORED)] if scored else [])]
    return "\n\n".join(_markdown(*table) for table in tables)


def _markdown(rows: Sequence[Row], columns: Sequence[tuple[str, str, str]]) -> str:
    lines = ["| " + " | ".join(title for _, title, _ in columns) + " |", "| --- " * len(columns) + "|"]
    lines += ["| " + " | ".join(_cells(row, columns)) + " |" for row in rows]
    return "\n".join(lines)


def _columns(rows: Sequence[Row]) -> tuple[tuple[str, str, str], ...]:
    """Field, title and format of each column; some are there only if a row has something to say in them."""
    options, figures = _COLUMNS[:4], _COLUMNS[4:]
    if any(row.keeps is not None for row in rows):
        behind = 1 + [name for name, _, _ in figures].index("retention_error")
        figures = (*figures[:behind], _KEEPS, *figures[behind:])
    if any(row.corrections not in {"-", "all"} for row in rows):
        options += (("corrections", "corrections", "{}"),)
    return options + figures + tuple(c for c in _ON_REQUEST if any(getattr(row, c[0]) is not None for row in rows))


def _cells(row: Row, columns: Sequence[tuple[str, str, str]]) -> list[str]:
    """A row's cells as text; an error marks the first figure that it cost, and what is not kept is said to be so."""
    cells = {name: "-" if (value := getattr(row, name)) is None else form.format(value) for name, _, form in columns}
    missing = [name for name in ("map", "latency_ms", "image_ms") if name in cells and getattr(row, name) is None]
    if row.error and missing:
        cells[missing[0]] = "failed"
    if row.is_short and "keeps" in cells:
        cells["keeps"] += ": no"
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
