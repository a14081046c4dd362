"""Profiles of devices, and what was found against one, as tables and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from .files import atomic_write
from .targets.devices import Constraints, Device, OperatorRule, Source

if TYPE_CHECKING:
    from .patches.device_check import Finding

_COLORS = {"refuse": "red", "warn": "yellow", "note": "green"}
_UNKNOWN = "not known"


def overview(devices: Iterable[Device]) -> Table:
    """A row for each profile."""
    table = Table("target", "device", "format", "head", "outputs", "granularity", "io", "operators")
    for device in devices:
        values = (device.default(name) for name in ("head", "outputs", "granularity", "io"))
        listed = _UNKNOWN
        if device.accelerator is None:
            listed = "all on the CPU"
        elif device.operators is not None:
            listed = f"{sum(rule.accelerator for rule in device.operators.by_kind.values())} listed"
        cells = (device.name, device.title, device.formats[0], *(value or "by format" for value in values), listed)
        table.add_row(*map(escape, map(str, cells)))
    return table


def details(device: Device) -> Group:
    """All that a profile says, each line with its source and date."""
    parts: list[Any] = [
        escape(f"{device.name}: {device.title}"),
        escape(f"formats: {', '.join(device.formats)}; layout of the input: {device.layout}"),
        escape(f"accelerator: {device.accelerator or 'none, files run on the CPU'}"),
        escape(f"tasks: {', '.join(device.tasks) or 'no limit is known'}"),
    ]
    if device.nncf is not None:
        parts.append(escape(f"NNCF's target_device: {device.nncf}"))
    rows = [
        *((f"{e.option}={e.value}", "default", e.why, e.source) for e in device.defaults),
        *((f"{e.option}={e.value}", e.effect, e.why, e.source) for e in device.cautions),
        *((f"activation {e.name}", e.effect, e.note, e.source) for e in device.activations),
        *((f"memory, {e.what}", f"{e.bytes} bytes", e.note, e.source) for e in device.memory),
        *((" ".join((f"model {e.family}", *e.scales)), e.effect, e.note, e.source) for e in device.models),
        *((e.about, "", e.text, e.source) for e in device.notes),
    ]
    if device.size is not None:
        rows.insert(len(device.defaults), ("input", f"{device.size.largest} px", device.size.note, device.size.source))
    parts.append(_table(("of", "what", "why"), rows))
    parts.append(_operators(device))
    return Group(*parts)


def findings_table(findings: Sequence[Finding]) -> Table:
    """What was found, the worst first."""
    table = _titled(("finding", "of", "what", "source"))
    for one in findings:
        colored = f"[{_COLORS[one.severity]}]{one.severity}[/]"
        table.add_row(colored, escape(one.about), escape(one.text), escape(_said(one.source)))
    return table


def save_devices(devices: Sequence[Device], path: Path) -> None:
    """Write profiles as JSON, by name, their fields as named in :mod:`.targets.devices`.

    Raises:
        OutputError: it cannot be written.
    """
    _save({device.name.value: _values(device) for device in devices}, path)


def save_findings(device: Device, findings: Sequence[Finding], path: Path) -> None:
    """Write what was found as JSON.

    Raises:
        OutputError: it cannot be written.
    """
    _save({"target": device.name.value, "findings": [asdict(one) for one in findings]}, path)


def _values(device: Device) -> dict[str, Any]:
    values = asdict(device)
    if values["operators"] is not None:
        for rule in (values["operators"]["common"], *values["operators"]["by_kind"].values()):
            limits = rule.get("constraints", rule)
            for name in [name for name, value in limits.items() if value is None]:
                del limits[name]
    return values


def _save(values: dict[str, Any], path: Path) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(values, indent=1) + "\n")


def _operators(device: Device) -> Any:
    rules = device.operators
    if rules is None:
        return "operators: all run on the CPU" if device.accelerator is None else f"operators: {_UNKNOWN}"
    of = "" if device.hardware_of is None else f" (as {device.hardware_of})"
    rows = [(f"all{of}", "", _limits(rules.common, rules.note), rules.source)]
    groups: dict[tuple[Any, ...], list[str]] = {}
    for rule in rules.by_kind.values():
        groups.setdefault(_group(rule), []).append(rule.kind)
    for (runs, limits, source), kinds in groups.items():
        rows.append((", ".join(kinds), runs, limits, source))
    return _table(("operators", "runs on", "if"), rows)


def _group(rule: OperatorRule) -> tuple[str, str, Source]:
    return ("accelerator" if rule.accelerator else "cpu", _limits(rule.constraints, rule.note), rule.source)


def _limits(limits: Constraints, note: str) -> str:
    """Constraints in words."""
    said = []
    for name in (field.name for field in fields(limits)):
        value = getattr(limits, name)
        if name == "permutations" and value is not None:
            value = [one.axes for one in value]
        if value is not None:
            shown = ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value).lower()
            said.append(f"{name} {shown}")
    return "; ".join([*said, *([note] if note else [])])


def _table(titles: Sequence[str], rows: Iterable[tuple[str, str, str, Source]]) -> Table:
    table = _titled((*titles, "source"))
    for *cells, source in rows:
        table.add_row(*map(escape, map(str, cells)), escape(_said(source)))
    return table


def _titled(titles: Iterable[str]) -> Table:
    """An empty table that folds long addresses instead of cutting them."""
    table = Table()
    for title in titles:
        table.add_column(title, overflow="fold")
    return table


def _said(source: Source | None) -> str:
    return "" if source is None else f"{source.where}, {source.date}"
