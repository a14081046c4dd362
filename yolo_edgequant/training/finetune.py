"""Recovery: a model with swapped activations is trained until it answers as the original did.

The recipe stands on Ultralytics' trainer and its distillation. The original is the teacher; outputs are matched by the
term in :mod:`..upstream.distillation`, neck features by upstream's own where ``dis`` is above 0.
"""

from __future__ import annotations

import copy
import json
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ..errors import OptionError, TrainingError, UnsupportedModelError
from ..files import whole
from . import curve
from .activations import check, swap_activation

if TYPE_CHECKING:
    from ultralytics import YOLO
    from ultralytics.engine.trainer import BaseTrainer

#: Ultralytics' training arguments, chosen for a few hundred to a few thousand images and a short schedule.
RECIPE: dict[str, Any] = {
    "epochs": 10,
    "batch": 16,
    "nbs": 16,  # a step of the optimiser after every batch: there are few of them
    "optimizer": "AdamW",
    "lr0": 0.001,
    "lrf": 0.01,
    "cos_lr": True,
    "warmup_epochs": 0.2,
    "warmup_bias_lr": 0.0,  # upstream's 0.1 is for biases that are new
    "mosaic": 0.0,  # a short schedule has no time to learn pictures that it will not see
    "close_mosaic": 0,
    # upstream's match of neck features goes through a projector that starts at random: 0.5 and 6 were worse than none
    "dis": 0.0,  # the outputs' weight does not depend on it
    "patience": 0,
    "seed": 0,
    "deterministic": True,
    "plots": False,
}

#: Training arguments that finetune does not take, and what to do instead.
_FIXED = {
    "distill_model": "use teacher=",
    "project": "use out=",
    "name": "use out=",
    "quantize": "export(quantize=8) makes the INT8 file afterwards",
}

_EXPLODED = 5.0  # an epoch's loss over the least so far; seen while training goes well: below 1.3


@dataclass(frozen=True)
class FineTuned:
    """What a recovery achieved; accuracies are mAP50-95 on the data's validation split, 0 to 1.

    Attributes:
        checkpoint: the best epoch's weights, to load with ``YOLO(...)``.
        activation: the one that was swapped in.
        teacher: accuracy of the teacher.
        swapped: accuracy of the model with the new activations, before training.
        recovered: accuracy of `checkpoint`.
        epochs: of training, those before a resumption included.
        seconds: of this call's training, with its validations.
        seed: of the training.
    """

    checkpoint: Path
    activation: str
    teacher: float
    swapped: float
    recovered: float
    epochs: int
    seconds: float
    seed: int

    def table(self) -> Table:
        """The three accuracies, to print with Rich."""
        table = Table(title=f"{self.activation} after {self.epochs} epochs, {self.seconds:.0f} s")
        for title in ("model", "mAP50-95", "of the teacher"):
            table.add_column(title, justify="left" if title == "model" else "right")
        rows = {"teacher": self.teacher, "swapped": self.swapped, "recovered": self.recovered}
        for name, value in rows.items():
            table.add_row(name, f"{value:.4f}", f"{value / self.teacher:.1%}" if self.teacher else "-")
        return table


def finetune(
    model: YOLO | str | Path,
    data: str | Path,
    activation: str = "relu6",
    teacher: YOLO | str | Path | None = None,
    out: str | Path = "finetune",
    resume: bool = False,
    console: Console | None = None,
    **train: Any,
) -> FineTuned:
    """Swap the activations of a copy of a model, and train it with the original as teacher.

    Args:
        model: a ``YOLO`` or a checkpoint's path, of a task that detects (detect, segment, pose, obb); left as it is.
        data: data set YAML with a train and a validation split.
        activation: a key of :data:`.activations.ACTIVATIONS`.
        teacher: a ``YOLO`` or a checkpoint's path; the model itself if None. It may be larger, of the same classes.
        out: folder of the run, for ``weights/best.pt``, ``weights/last.pt``, ``curve.png`` and ``finetune.json``.
        resume: continue the interrupted run in `out` with its own settings and teacher.
        console: where to show the progress; standard output if None.
        train: Ultralytics' training arguments over those in :data:`RECIPE`, for example ``epochs=20, device=0``.

    Raises:
        OptionError: an unknown activation or argument, data or a file that does not exist, or nothing to resume.
        UnsupportedModelError: no trained model in PyTorch, or one that does not detect.
        TrainingError: the loss is not a number or explodes; the last good checkpoint is kept.
    """
    check(activation)
    _check_arguments(train)
    out = Path(out).resolve()
    weights, teacher_file = out / "weights", out / "teacher.pt"
    interrupted = _interrupted(weights / "last.pt") if resume else None
    student = _loaded(model)
    _check_data(data, student)
    if not resume:
        out.mkdir(parents=True, exist_ok=True)
        _loaded(model if teacher is None else teacher).save(teacher_file)  # its own copy, for resuming
    swap_activation(student, activation)
    settings = {"data": str(data), "distill_model": str(teacher_file), "save_dir": str(out)}
    with _quiet():
        teachers = _accuracy(_loaded(teacher_file), data, train)
        swapped = _accuracy(student, data, train)
        if interrupted is None:
            trained, settings = student, {"imgsz": student.overrides["imgsz"], **RECIPE, **train, **settings}
        else:
            trained, settings = interrupted, {"resume": True, **settings}
        started = time.monotonic()
        with _watched(trained, console or Console()):
            trained.train(activation=activation, **settings)
        seconds = time.monotonic() - started
        recovered = _accuracy(_loaded(weights / "best.pt"), data, train)
    trainer = trained.trainer
    done = FineTuned(
        checkpoint=weights / "best.pt",
        activation=activation,
        teacher=teachers,
        swapped=swapped,
        recovered=recovered,
        epochs=trainer.epoch + 1,
        seconds=seconds,
        seed=trainer.args.seed,
    )
    curve.draw(out / "results.csv", out / "curve.png", teachers, swapped)
    with whole(out / "finetune.json") as temporary:
        temporary.write_text(json.dumps(asdict(done), indent=1, default=str) + "\n")
    return done


def _loaded(model: YOLO | str | Path) -> YOLO:
    """The checkpoint, or a copy of a ``YOLO``.

    Raises:
        OptionError: there is no such file.
        UnsupportedModelError: it is not a trained PyTorch model, or does not detect.
    """
    from ultralytics import YOLO

    from ..upstream.heads import detection_head

    if isinstance(model, (str, Path)):
        if not Path(model).is_file():
            raise OptionError(f"'{model}' not found (looked in {Path.cwd()})")
        loaded = YOLO(model)
    else:
        left = (model.trainer, model.predictor)  # they hold loaders and files, which cannot be copied
        loaded = copy.deepcopy(model, {id(part): None for part in left})
    if not loaded.ckpt:
        raise UnsupportedModelError(
            f"'{loaded.model_name}' has no trained weights to start from; pass a checkpoint (.pt) that was trained"
        )
    if detection_head(loaded.model) is None:
        raise UnsupportedModelError(
            f"distillation needs a head that detects, but this is a {loaded.task} model; use "
            "model.train(activation=…) for it"
        )
    if loaded.model.is_fused():
        raise UnsupportedModelError("this model's batch-norm is fused into its convolutions; pass it as loaded")
    return loaded


def _check_arguments(train: dict[str, Any]) -> None:
    """Refuse arguments that upstream's trainer does not have, or that the recipe sets itself.

    Raises:
        OptionError: there is one.
    """
    from ultralytics.utils import DEFAULT_CFG_DICT

    for name in train:
        if name in _FIXED:
            raise OptionError(f"{name}= is not for finetune: {_FIXED[name]}")
        if name not in DEFAULT_CFG_DICT:
            raise OptionError(f"{name}= is neither an argument of finetune nor one of Ultralytics' training arguments")


def _check_data(data: str | Path, model: YOLO) -> None:
    """Find the images before any work, without fetching anything.

    Raises:
        OptionError: a split is missing, or the classes are not as many as the model's.
    """
    from ultralytics.data.utils import check_det_dataset

    try:
        found = [check_det_dataset(str(data), autodownload=False, split=split) for split in ("train", "val")]
    except (FileNotFoundError, SyntaxError, TypeError) as error:
        raise OptionError(f"data={str(data)!r}: {' '.join(str(error).split())}") from error
    if found[0]["nc"] != len(model.names):
        raise OptionError(
            f"data={str(data)!r} has {found[0]['nc']} classes and the model {len(model.names)}: a model learns new "
            "classes first, then new activations"
        )


def _interrupted(last: Path) -> YOLO:
    """The run's last checkpoint.

    Raises:
        OptionError: there is none, or the run is finished.
    """
    from ultralytics import YOLO

    if not last.is_file():
        raise OptionError(f"nothing to resume: there is no '{last}'; leave resume out to start")
    run = YOLO(last)
    if run.ckpt.get("epoch", -1) < 0:
        raise OptionError(f"nothing to resume: the run in '{last.parents[1]}' is finished; choose another out=")
    return run


def _accuracy(model: YOLO, data: str | Path, train: dict[str, Any]) -> float:
    """MAP50-95 on the validation split, of the task's own output (masks, keypoints) where it has one besides boxes."""
    shared = {name: train[name] for name in ("imgsz", "device", "batch", "split") if name in train}
    results = model.val(data=str(data), plots=False, verbose=False, **shared).results_dict
    return [float(value) for name, value in results.items() if "mAP50-95" in name][-1]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Ultralytics' tables and bars; its warnings stay."""
    from ultralytics.utils import LOGGER

    before = LOGGER.level
    LOGGER.setLevel(logging.WARNING)
    try:
        yield
    finally:
        LOGGER.setLevel(before)


@contextmanager
def _watched(model: YOLO, console: Console) -> Iterator[None]:
    """Show the progress of a model's training, and end it when it diverges."""
    watch = _Watch(console)
    added = {
        "on_train_start": watch.start,
        "on_train_batch_end": watch.batch,
        "on_train_epoch_end": watch.epoch,
        "on_fit_epoch_end": watch.validated,
    }
    for event, callback in added.items():
        model.add_callback(event, callback)
    try:
        with watch.progress:
            yield
    finally:
        for event, callback in added.items():
            model.callbacks[event].remove(callback)


class _Watch:
    """Callbacks of Ultralytics' trainer."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.progress = Progress(*columns, console=console)
        self._least = math.inf

    def start(self, trainer: BaseTrainer) -> None:
        batches = len(trainer.train_loader)
        self._bar = self.progress.add_task(
            "training", total=batches * trainer.epochs, completed=batches * trainer.start_epoch
        )

    def batch(self, trainer: BaseTrainer) -> None:
        loss = trainer.loss.item()
        if not math.isfinite(loss):
            raise _diverged(trainer, f"loss {loss}")
        self.progress.advance(self._bar)

    def epoch(self, trainer: BaseTrainer) -> None:
        loss = sum(part.sum().item() for part in trainer.tloss.values())
        if not loss < _EXPLODED * self._least:
            raise _diverged(trainer, f"loss {loss:.3g}, {loss / self._least:.1f} times its least")
        self._least = min(self._least, loss)

    def validated(self, trainer: BaseTrainer) -> None:
        if trainer.epoch == trainer.epochs:
            return  # the best checkpoint once more, after the last epoch
        accuracy = [float(value) for name, value in trainer.metrics.items() if "mAP50-95" in name][-1]
        self.progress.update(self._bar, description=f"epoch {trainer.epoch + 1}: mAP50-95 {accuracy:.4f}")


def _diverged(trainer: BaseTrainer, what: str) -> TrainingError:
    kept = f"the last good checkpoint is '{trainer.last}'" if trainer.last.is_file() else "no epoch was finished"
    return TrainingError(
        f"training diverged in epoch {trainer.epoch + 1} ({what}); {kept}; start again with a smaller lr0= "
        f"(it was {trainer.args.lr0:g})"
    )
