"""What the search for the precision measured: tables, JSON and a plot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg  # pyplot would choose a window system
from matplotlib.figure import Figure
from rich.table import Table

from ..files import atomic_write
from .sensitivity import Cost, Trial


def ranking(ranked: Sequence[Cost], kept: int) -> Table:
    """The layers that cost most, `kept` of them in float."""
    table = Table(title="layers by the noise that each alone adds to the outputs", caption="the ten costliest")
    for title in ("layer", "noise", "precision"):
        table.add_column(title)
    for number, cost in enumerate(ranked[:10]):
        table.add_row(cost.layer[-70:], f"{cost.noise:.2e}", "float" if number < kept else "int8")
    return table


def trials(trials: Sequence[Trial]) -> Table:
    """The files that were tried."""
    table = Table(title="layers in float, on the calibration images")
    for title in ("layers", "retention", "latency ms"):
        table.add_column(title, justify="right")
    for trial in sorted(trials, key=lambda trial: trial.in_float):
        table.add_row(str(trial.in_float), f"{trial.retention:.1%}", f"{trial.latency_ms:.1f}")
    return table


def save(ranked: Sequence[Cost], trials: Sequence[Trial], report: Path) -> None:
    """Write the ranking and the trials as JSON, and a plot beside it."""
    ordered = sorted(trials, key=lambda trial: trial.in_float)
    layers = [{"layer": cost.layer, "noise": cost.noise} for cost in ranked]
    with atomic_write(report) as temporary:
        temporary.write_text(json.dumps({"layers": layers, "trials": [asdict(t) for t in ordered]}, indent=1) + "\n")
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.bar(range(len(ranked)), [cost.noise for cost in ranked])
    left.set(yscale="log", xlabel="layer, the costliest first", ylabel="noise / variance of the outputs")
    right.plot([t.in_float for t in ordered], [t.retention for t in ordered], "o-")
    right.set(xlabel="layers in float", ylabel="retention, calibration images")
    times = right.twinx()
    times.plot([t.in_float for t in ordered], [t.latency_ms for t in ordered], "s--", color="tab:red")
    times.set_ylabel("latency ms", color="tab:red")
    with atomic_write(report.with_suffix(".png")) as temporary:
        FigureCanvasAgg(figure).print_png(temporary)
