"""An inspection as one HTML page that needs nothing else: plots are SVG, pictures are in it, and so is the JSON.

Every figure in the page is one of that JSON (:func:`.report.as_dict`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from ..files import atomic_write
from .examine import Inspection
from .report import as_dict, as_json, pictures

_TEMPLATE = "page.html.j2"
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 900, 260, 62, 24, 10  # of a plot, in its own units
_FLOOR, _CEILING = -10.0, 70.0  # decibels that a plot shows

_ROLES = {"float": "float model", "file": "this file", "beside": "other file"}


@dataclass(frozen=True)
class Point:
    """A tensor in a plot: where it is, in the plot's units, its kind for the colour, and what it says when touched."""

    x: float
    y: float
    kind: str
    title: str


@dataclass(frozen=True)
class Plot:
    """Tensors along the graph.

    Attributes:
        points: in execution order.
        ticks: height in the plot, and text, of each line across.
    """

    points: Sequence[Point]
    ticks: Sequence[tuple[float, str]]
    width: int = _WIDTH
    height: int = _HEIGHT
    left: int = _LEFT
    bottom: int = _HEIGHT - _BOTTOM


@dataclass(frozen=True)
class Bar:
    """A kind of operator: its number, and of each place the number and the share of the longest bar, in percent."""

    kind: str
    count: int
    parts: Sequence[tuple[str, int, float]]


def save(inspection: Inspection, path: Path) -> None:
    """Write the page.

    Raises:
        OutputError: it cannot be written.
    """
    drawn = pictures(inspection.measured) if inspection.measured else []
    with atomic_write(path) as temporary:
        temporary.write_text(render(as_dict(inspection), drawn), encoding="utf-8")


def render(values: Mapping[str, Any], drawn: Sequence[Mapping[str, str]]) -> str:
    """The page's text.

    Args:
        values: the JSON.
        drawn: for each image, by role, a data URI.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["number"] = lambda number: f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
    tensors = values["tensors"]
    return environment.get_template(_TEMPLATE).render(
        values=values,
        scales=_scales(tensors),
        noise=_noise(tensors),
        bars=_bars(values["operators"]),
        places=list(values["target"]["places"]) if values["target"] else [],
        worst=[tensors[index] for index in values["images"]["worst"]] if values["images"] else [],
        drawn=drawn,
        roles=_ROLES,
        data=as_json(dict(values)).replace("<", "\\u003c"),
    )


def _scales(tensors: Sequence[Mapping[str, Any]]) -> Plot | None:
    """Scales of computed tensors on a logarithmic axis; None if there are none."""
    rows = [t for t in tensors if t["order"] is not None and len(t["scales"]) == 1 and t["scales"][0] > 0]
    if not rows:
        return None
    logs = [math.log10(row["scales"][0]) for row in rows]
    low, high = math.floor(min(logs)), math.ceil(max(logs))
    high += high == low
    titles = [f"{row['name']}: scale {row['scales'][0]:.4g}, zero point {row['zero_points'][0]}" for row in rows]
    ticks = [(_y(power, low, high), f"{10.0**power:g}") for power in range(low, high + 1)]
    return Plot(_points(rows, logs, low, high, titles), ticks)


def _noise(tensors: Sequence[Mapping[str, Any]]) -> Plot | None:
    """Signal to noise of computed tensors; None if none was measured."""
    rows = [tensor for tensor in tensors if tensor["order"] is not None and "snr_db" in tensor]
    if not rows:
        return None
    values = [min(max(row["snr_db"], _FLOOR), _CEILING) for row in rows]
    titles = [f"{row['name']}: {row['snr_db']:.1f} dB, {row['kept']:.1%} kept by channel" for row in rows]
    ticks = [(_y(level, _FLOOR, _CEILING), f"{level:g} dB") for level in range(int(_FLOOR), int(_CEILING) + 1, 20)]
    return Plot(_points(rows, values, _FLOOR, _CEILING, titles), ticks)


def _points(
    rows: Sequence[Mapping[str, Any]], values: Sequence[float], low: float, high: float, titles: Sequence[str]
) -> list[Point]:
    last = max(1, *(row["order"] for row in rows))
    return [
        Point(
            round(_LEFT + 8 + (_WIDTH - _LEFT - 16) * row["order"] / last, 1),
            _y(value, low, high),
            "head" if row["head"] else "body",
            title,
        )
        for row, value, title in zip(rows, values, titles, strict=True)
    ]


def _y(value: float, low: float, high: float) -> float:
    return round(_TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - (value - low) / (high - low)), 1)


def _bars(operators: Sequence[Mapping[str, Any]]) -> list[Bar]:
    """Operators by kind, the most frequent first, each by where it would run."""
    counts: dict[str, dict[str, int]] = {}
    for operator in operators:
        places = counts.setdefault(operator["kind"], {})
        place = operator["place"] or "operators"
        places[place] = places.get(place, 0) + 1
    longest = max((sum(places.values()) for places in counts.values()), default=1)
    ordered = sorted(counts.items(), key=lambda entry: -sum(entry[1].values()))
    return [
        Bar(kind, sum(places.values()), [(p, n, round(100 * n / longest, 2)) for p, n in sorted(places.items())])
        for kind, places in ordered
    ]
