"""The course of a training as a picture."""

from __future__ import annotations

import csv
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg  # pyplot would choose a window system
from matplotlib.figure import Figure

from ..files import atomic_write
from ..upstream.validation import main_metric


def draw(results: Path, out: Path, teacher: float, before: float) -> int:
    """Draw losses and accuracy over the epochs, and return how many epochs there were.

    Args:
        results: ``results.csv`` of Ultralytics' trainer.
        out: the PNG to write.
        teacher, before: mAP50-95 of the teacher, and of the model before training, 0 to 1.
    """
    with results.open(newline="") as file:
        rows = [{name.strip(): float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    epochs = [row["epoch"] for row in rows]
    accuracy = main_metric(rows[0])
    figure = Figure(figsize=(10, 4), layout="constrained")
    losses, accuracies = figure.subplots(1, 2)
    for name in (name for name in rows[0] if name.startswith("train/")):
        losses.plot(epochs, [row[name] for row in rows], marker=".", label=name.removeprefix("train/"))
    losses.set(xlabel="epoch", ylabel="training loss")
    losses.legend()
    accuracies.plot(epochs, [row[accuracy] for row in rows], marker=".", label="fine-tuned")
    accuracies.axhline(teacher, linestyle="--", color="tab:green", label=f"teacher, {teacher:.3f}")
    accuracies.axhline(before, linestyle=":", color="tab:red", label=f"before training, {before:.3f}")
    accuracies.set(xlabel="epoch", ylabel="mAP50-95")
    accuracies.legend()
    for axes in (losses, accuracies):
        axes.xaxis.get_major_locator().set_params(integer=True)
    with atomic_write(out) as temporary:
        FigureCanvasAgg(figure).print_png(temporary)
    return int(epochs[-1])
