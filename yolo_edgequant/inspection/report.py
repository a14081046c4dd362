"""An inspection as tables for people, and as JSON for programs. The page takes its figures from that JSON."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table

from .._version import __version__
from ..files import atomic_write
from ..targets.placement import Place
from .compiled import Compiled
from .examine import Inspection
from .findings import Level
from .model import Tensor
from .noise import Measured, Noise

SCHEMA = 1

_COLORS = {Level.ERROR: "red", Level.WARNING: "yellow", Level.NOTE: "default"}
_WORST = 8  # tensors in the table
_REASONS = 12  # rows of what is not on the accelerator


def as_dict(inspection: Inspection) -> dict[str, Any]:
    """All of an inspection in plain values, with no number that JSON has not."""
    model, placed = inspection.model, inspection.placed
    noise = {row.tensor: row for row in inspection.measured.noise} if inspection.measured else {}
    inside = set(inspection.head.tensors())
    order = {tensor: position for position, tensor in enumerate(model.computed)}
    return {
        "schema": SCHEMA,
        "version": __version__,
        "file": {
            "name": model.path.name,
            "family": model.family,
            "bytes": model.size,
            "weights_bytes": model.weights,
            "inputs": [_place(model.tensors[tensor]) for tensor in model.inputs],
            "outputs": [_place(model.tensors[tensor]) for tensor in model.outputs],
        },
        "findings": [{**asdict(finding), "level": str(finding.level)} for finding in inspection.findings],
        "head": _head(inspection),
        "memory": _memory(inspection),
        "target": None
        if placed is None
        else {
            "name": str(placed.device.name),
            "title": placed.device.title,
            "accelerator": placed.device.accelerator,
            "partitions": placed.partitions,
            "places": dict(Counter(str(placement.place) for placement in placed.placements)),
        },
        "operators": [
            {
                "index": node.index,
                "kind": node.kind,
                "version": node.version,
                "inputs": list(node.inputs),
                "outputs": list(node.outputs),
                "place": None if placed is None else str(placed.placements[node.index].place),
                "reason": None if placed is None else placed.placements[node.index].reason,
            }
            for node in model.nodes
        ],
        "tensors": [
            {
                "index": index,
                "order": order.get(index),
                **_place(tensor),
                "constant": tensor.constant,
                "bytes": tensor.size,
                "scales": [_number(scale) for scale in tensor.scales],
                "zero_points": [int(point) for point in tensor.zero_points],
                "head": index in inside,
                **_noise(noise.get(index)),
            }
            for index, tensor in enumerate(model.tensors)
        ],
        "compilers": [_compiler(compiled) for compiled in inspection.compiled],
        "images": _images(inspection, inspection.measured),
    }


def save(inspection: Inspection, path: Path) -> None:
    """Write it as JSON.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(as_json(as_dict(inspection)) + "\n", encoding="utf-8")


def as_json(values: dict[str, Any]) -> str:
    """As text, one line for a value that is not long."""
    return json.dumps(values, allow_nan=False, separators=(",", ":"))


def tables(inspection: Inspection) -> Group:
    """All of it for people."""
    parts: list[Any] = [_file_table(inspection)]
    parts.append(_operator_table(inspection))
    if inspection.placed is not None:
        parts += _reason_table(inspection)
    parts += [_compiler_table(compiled) for compiled in inspection.compiled]
    if inspection.measured is not None:
        parts += _measured_tables(inspection, inspection.measured)
    for finding in inspection.findings:
        color = _COLORS[finding.level]
        parts.append(f"[{color}]{finding.level}:[/] {escape(finding.text)}")
    if not inspection.findings:
        parts.append("[green]nothing is known against this file[/]")
    return Group(*parts)


def as_text(inspection: Inspection) -> str:
    """The tables as plain text, for a log; as wide as the terminal, and in a file or a pipe with all their columns."""
    text = io.StringIO()
    Console(file=text, width=shutil.get_terminal_size((160, 24)).columns).print(tables(inspection), soft_wrap=True)
    return text.getvalue().rstrip()


def worst(noise: tuple[Noise, ...]) -> list[Noise]:
    """The tensors of which the least is left, the worst first."""
    return sorted(noise, key=lambda row: (row.kept, row.snr_db))[:_WORST]


def _file_table(inspection: Inspection) -> Table:
    model, head = inspection.model, inspection.spread
    table = Table(title=escape(model.path.name), show_header=False)
    for way, tensors in (("input", model.inputs), ("output", model.outputs)):
        for tensor in tensors:
            table.add_row(way, _in_words(model.tensors[tensor]))
    memory = inspection.memory
    table.add_row("weights", f"{memory.weights:,} bytes")
    if memory.activations is not None:
        kept = "" if model.family == "tflite" else ", counted as stored, in float"
        table.add_row("activations", f"{memory.activations:,} bytes at once at most{kept}")
    if inspection.placed is not None and (limit := inspection.placed.parameters) is not None:
        sides = memory.sides(limit, model.side)
        size = f"with activations inputs up to {sides[-1]} x {sides[-1]} (estimate)" if sides else "no input"
        fit = "fit" if memory.weights <= limit else "do not fit"
        table.add_row("memory", f"weights {fit} into {limit:,} bytes ({memory.weights / limit:.0%}); {size} would")
    if head is not None:
        table.add_row(
            "scales in box decoding",
            f"largest / smallest: {head.activations:,.0f} of what is computed, {head.all:,.0f} with its constants",
        )
    return table


def _operator_table(inspection: Inspection) -> Table:
    """Kinds of operators; where they would run, if a device is known."""
    places = inspection.placed.placements if inspection.placed else None
    title = "operators"
    if inspection.placed is not None:
        placed = inspection.placed
        name = placed.device.accelerator
        where = "it has no accelerator" if name is None else f"{placed.partitions} partition(s) on the {name}"
        title = f"operators on {placed.device.name}: {where}"
    table = Table(title=title)
    table.add_column("operator")
    table.add_column("version", justify="right")
    table.add_column("count", justify="right")
    columns = [] if places is None else [place for place in Place if any(p.place == place for p in places)]
    for place in columns:
        table.add_column(str(place), justify="right")
    nodes = inspection.model.nodes
    kinds = Counter((node.kind, node.version) for node in nodes)
    by_place = Counter((node.kind, node.version, places[node.index].place) for node in nodes if places is not None)
    for (kind, version), count in kinds.most_common():
        cells = [str(by_place[kind, version, place] or "-") for place in columns]
        table.add_row(escape(kind), str(version), str(count), *cells)
    return table


def _reason_table(inspection: Inspection) -> list[Table]:
    reasons: Counter[tuple[str, str, str]] = Counter()
    for node, placement in zip(inspection.model.nodes, inspection.placed.placements, strict=True):
        if placement.place != Place.ACCELERATOR and inspection.placed.device.accelerator is not None:
            reasons[str(placement.place), node.kind, placement.reason] += 1
    if not reasons:
        return []
    table = Table("place", "operator", "count", "why", title="not on the accelerator")
    for (place, kind, reason), count in reasons.most_common(_REASONS):
        table.add_row(place, escape(kind), str(count), escape(reason))
    return [table]


def _compiler_table(compiled: Compiled) -> Table:
    table = Table(title=escape(f"{compiled.compiler} for {compiled.device}"), show_header=False)
    where = "in 8 bits" if compiled.precisions else "on the accelerator"
    total = compiled.accelerator + compiled.cpu
    table.add_row("operators", f"{compiled.accelerator} of {total} {where} ({compiled.share:.1%})")
    if compiled.precisions:
        table.add_row("computed in", ", ".join(f"{escape(p)} {n}" for p, n in compiled.precisions.items()))
    if compiled.subgraphs is not None:
        table.add_row("subgraphs", str(compiled.subgraphs))
    if compiled.cycles is not None and compiled.per_second is not None:
        table.add_row(
            "estimate",
            f"{compiled.cycles / 1e6:.1f} million cycles, {compiled.per_second:.1f} images a second"
            + (" (what is on the CPU is not counted)" if compiled.cpu else ""),
        )
    for name, size in compiled.memory.items():
        table.add_row(escape(name.replace("_", " ")), f"{size:,} bytes")
    for name, value in compiled.settings.items():
        table.add_row(escape(name), escape(value))
    if compiled.heaviest:
        table.add_row("time goes to", ", ".join(f"{escape(h.kind)} {h.share:.0%}" for h in compiled.heaviest))
    for fallback in compiled.fallbacks[:_REASONS]:
        table.add_row("not in 8 bits" if compiled.precisions else "on the CPU", escape(_fallback(fallback)))
    if compiled.file is not None:
        table.add_row("written", escape(str(compiled.file)))
    return table


def _fallback(fallback: Any) -> str:
    return f"{fallback.count} {fallback.kind}: {fallback.reason}"


def _measured_tables(inspection: Inspection, measured: Measured) -> list[Any]:
    parts: list[Any] = []
    if measured.noise:
        table = Table(title=f"worst tensors beside {inspection.reference}, {len(measured.images)} image(s)")
        table.add_column("tensor")
        for name in ("signal to noise, dB", "kept by channel"):
            table.add_column(name, justify="right")
        for row in worst(measured.noise):
            name = _short(inspection.model.tensors[row.tensor].name)
            table.add_row(escape(name), f"{row.snr_db:.1f}", f"{row.kept:.1%}")
        parts.append(table)
    elif inspection.reference is None:
        parts.append("no signal to noise without the float model: give --float CHECKPOINT.pt, or a float file")
    else:
        parts.append(f"no tensor of this file was recognized in {escape(inspection.reference)}")
    roles = [role for role in ("float", "file", "beside") if any(s.role == role for row in measured.views for s in row)]
    if roles:
        table = Table("image", *roles, title="objects with a score over 0.25")
        for image, views in zip(measured.images, measured.views, strict=True):
            counts = {s.role: str(s.count) for s in views}
            table.add_row(escape(image), *(counts.get(role, "-") for role in roles))
        parts.append(table)
    parts += [f"no objects of {role}: {escape(why)}" for role, why in measured.troubles.items()]
    return parts


def _head(inspection: Inspection) -> dict[str, Any] | None:
    spread = inspection.spread
    if spread is None:
        return None
    return {
        "spread": _number(spread.activations),
        "spread_with_constants": _number(spread.all),
        "largest": spread.largest,
        "smallest": spread.smallest,
        "operators": [node.index for node in inspection.head.nodes],
    }


def _memory(inspection: Inspection) -> dict[str, Any]:
    memory = inspection.memory
    limit = inspection.placed.parameters if inspection.placed else None
    sides = [] if limit is None else memory.sides(limit, inspection.model.side)
    return {**asdict(memory), "limit": limit, "largest_side": sides[-1] if sides else None}


def _compiler(compiled: Compiled) -> dict[str, Any]:
    values = {**asdict(compiled), "share": _number(compiled.share)}
    return {**values, "file": None if compiled.file is None else str(compiled.file)}


def _images(inspection: Inspection, measured: Measured | None) -> dict[str, Any] | None:
    if measured is None:
        return None
    return {
        "names": list(measured.images),
        "reference": inspection.reference,
        "beside": None if inspection.beside is None else inspection.beside.path.name,
        "worst": [row.tensor for row in worst(measured.noise)],
        "objects": [{s.role: {"count": s.count, "best": _optional(s.best)} for s in views} for views in measured.views],
        "troubles": dict(measured.troubles),
    }


def pictures(measured: Measured) -> list[dict[str, str]]:
    """For each image, by role, what was drawn, as a data URI."""
    return [
        {s.role: f"data:image/jpeg;base64,{base64.b64encode(s.picture).decode()}" for s in views}
        for views in measured.views
    ]


def _place(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "shape": list(tensor.shape), "dtype": tensor.dtype}


def _noise(row: Noise | None) -> dict[str, Any]:
    return {} if row is None else {"snr_db": _number(row.snr_db), "kept": _number(row.kept)}


def _in_words(tensor: Tensor) -> str:
    scale = "" if tensor.scale is None else f", scale {tensor.scale:.4g}, zero point {tensor.zero_points[0]}"
    return f"{tensor.dtype} {'x'.join(map(str, tensor.shape))}{scale} ({escape(_short(tensor.name))})"


def _short(name: str) -> str:
    """The end of a name, which tells more than its beginning."""
    return name if len(name) <= 60 else f"…{name[-59:]}"


def _number(value: float) -> float:
    return float(np.format_float_positional(value, 6, fractional=False, trim="-"))


def _optional(value: float | None) -> float | None:
    return None if value is None else _number(value)
