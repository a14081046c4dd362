"""Recovery: a model with other activations, or with the rounding of an INT8 file, learns to answer as the original did.

The recipe stands on Ultralytics' trainer and its distillation. The original is the teacher; outputs are matched by the
term in :mod:`..upstream.distillation`, neck features by upstream's own where ``dis`` is above 0.
"""

from __future__ import annotations

import copy
import json
import logging
import math
import os
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
from ..targets.profiles import PROFILES, require_packages
from ..upstream import aware
from ..upstream.images import training_images
from . import curve, rescaling
from .activations import check, swap_activation

if TYPE_CHECKING:
    import torch
    from ultralytics import YOLO
    from ultralytics.engine.trainer import BaseTrainer

#: Ultralytics' training arguments, chosen for a few hundred to a few thousand images and a short schedule.
RECIPE: dict[str, Any] = {
    "epochs": 10,
    "batch": 16,
    "nbs": 16,  # a step of the optimiser after every batch: there are few of them
    "optimizer": "AdamW",
    "lr0": 0.0003,
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

#: The same for quantisation-aware training with the model's own activations, which starts close to its end: on YOLOv8n
#: 30 steps took it a seventh nearer to its teacher on images not trained on, and with five times the rate further away.
AWARE: dict[str, Any] = {
    **RECIPE,
    "epochs": 10,
    "batch": 8,
    "nbs": 8,
    "lr0": 0.00001,
    # images as they will come: the ranges are of these
    **{"hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0, "translate": 0.0, "scale": 0.0, "erasing": 0.0},
}

#: Training arguments that finetune does not take, and what to do instead.
_FIXED = {
    "distill_model": "use teacher=",
    "project": "use out=",
    "name": "use out=",
    "quantize": "use target=, and export(quantize=8) to make the INT8 file afterwards",
}

LOGGER = logging.getLogger("yolo_edgequant")

_PREPARED_ON = 64  # images, for the scales of features and the statistics of batch-norm
_CORRECTED_ON = 24  # images in one pass, for the biases

_EXPLODED = 5.0  # an epoch's loss over the least so far; seen while training goes well: below 1.3


@dataclass(frozen=True)
class FineTuned:
    """What a recovery achieved; accuracies are mAP50-95 on the data's validation split, 0 to 1.

    Attributes:
        checkpoint: the best epoch's weights, to load with ``YOLO(...)``.
        activation: the one that was swapped in; None if the model kept its own.
        target: the format whose rounding the model was trained with; None if with none.
        granularity: of the weights' steps in that rounding; None without it.
        teacher: accuracy of the teacher.
        changed: accuracy of the model with the new activations and the rounding and nothing done about it.
        prepared: the same with features below ReLU6's bound and batch-norm anew (:mod:`.rescaling`), before training.
        recovered: accuracy of `checkpoint`, with its rounding.
        epochs: of training, those before a resumption included.
        seconds: of this call's training, with its validations.
        seed: of the training.
    """

    checkpoint: Path
    activation: str | None
    target: str | None
    granularity: str | None
    teacher: float
    changed: float
    prepared: float
    recovered: float
    epochs: int
    seconds: float
    seed: int

    def table(self) -> Table:
        """The three accuracies, to print with Rich."""
        what = ", ".join(part for part in (self.activation, self.target, self.granularity) if part)
        table = Table(title=f"{what} after {self.epochs} epochs, {self.seconds:.0f} s")
        for title in ("model", "mAP50-95", "of the teacher"):
            table.add_column(title, justify="left" if title == "model" else "right")
        for name in ("teacher", "changed", "prepared", "recovered"):
            value = getattr(self, name)
            table.add_row(name, f"{value:.4f}", f"{value / self.teacher:.1%}" if self.teacher else "-")
        return table


def finetune(
    model: YOLO | str | Path,
    data: str | Path,
    activation: str | None = None,
    target: str | None = None,
    granularity: str | None = None,
    teacher: YOLO | str | Path | None = None,
    out: str | Path = "finetune",
    resume: bool = False,
    console: Console | None = None,
    **train: Any,
) -> FineTuned:
    """Change the activations of a copy of a model, its arithmetic, or both; train it with the original as teacher.

    Args:
        model: a ``YOLO`` or a checkpoint's path, of a task that detects (detect, segment, pose, obb); left as it is.
        data: data set YAML with a train and a validation split.
        activation: a key of :data:`.activations.ACTIVATIONS` to swap in; None keeps the model's own.
        target: train quantisation-aware for this export format: one of :data:`..upstream.aware.TARGETS`. The
            checkpoint then exports to it (those of tflite to litert, edgetpu and saved_model, too) without
            calibration, with the ranges that were trained.
        granularity: with `target`, of the weights' steps: ``channel`` or ``tensor``; None for the target's default.
        teacher: a ``YOLO`` or a checkpoint's path; the model itself if None. It may be larger, of the same classes.
        out: folder of the run, for ``weights/best.pt``, ``weights/last.pt``, ``curve.png`` and ``finetune.json``.
        resume: continue the interrupted run in `out` with its own changes, settings and teacher.
        console: where to show the progress; standard output if None.
        train: Ultralytics' training arguments over those in :data:`RECIPE`, for example ``epochs=20, device=0``.

    Raises:
        OptionError: an unknown activation, target or argument, nothing to change, nothing to resume, data or a
            file that does not exist.
        UnsupportedModelError: no trained model in PyTorch, or one that does not detect.
        TrainingError: the loss is not a number or explodes; the last good checkpoint is kept.
    """
    from ultralytics import YOLO

    out = Path(out).resolve()
    weights, teacher_file, started_file = out / "weights", out / "teacher.pt", out / "started.json"
    interrupted = None
    if resume:
        interrupted = _interrupted(weights / "last.pt")
        activation, target, granularity = _started(started_file, activation, target, granularity)
    granularity = _check_changes(activation, target, granularity)
    _check_arguments(train)
    student = _loaded(model)
    _check_data(data, student)
    if not resume:
        out.mkdir(parents=True, exist_ok=True)
        _loaded(model if teacher is None else teacher).save(teacher_file)  # its own copy, for resuming
        with whole(started_file) as temporary:
            temporary.write_text(json.dumps([activation, target, granularity]) + "\n")
    if activation is not None:
        swap_activation(student, activation)
    settings = {"data": str(data), "distill_model": str(teacher_file), "save_dir": str(out)}
    with _quiet():
        teachers = _accuracy(_loaded(teacher_file), data, train)
        changed = _accuracy(student, data, train) if activation is not None else None
        recipe = {"imgsz": student.overrides["imgsz"], **(AWARE if activation is None else RECIPE), **train}
        if activation is not None:
            LOGGER.info("preparing the model for %s", activation)
            _prepare(student, _loaded(model), activation, training_images(data, recipe["imgsz"], _PREPARED_ON))
        if target is not None:
            LOGGER.info("calibrating for %s, to start from its ranges", target)
            points = aware.plan(student, str(data), target, granularity, recipe["imgsz"])
            images = training_images(data, recipe["imgsz"], _CORRECTED_ON, batch=_CORRECTED_ON)
            start = aware.rounded(student, points, images[0])
        else:
            start = student
        prepared = _accuracy(start, data, train)
        if interrupted is None:
            trained, settings = student, {**recipe, **settings}
        else:
            trained, settings = interrupted, {"resume": True, **settings}
        started = time.monotonic()
        with (
            _watched(trained, console or Console()),
            aware.training_of(start.model if interrupted is None else None),
        ):
            trained.train(activation=activation, **settings)
        seconds = time.monotonic() - started
        recovered = _accuracy(YOLO(weights / "best.pt"), data, train)
    trainer = trained.trainer
    done = FineTuned(
        checkpoint=weights / "best.pt",
        activation=activation,
        target=target,
        granularity=granularity,
        teacher=teachers,
        changed=prepared if changed is None else changed,
        prepared=prepared,
        recovered=recovered,
        epochs=trainer.epoch + 1,
        seconds=seconds,
        seed=trainer.args.seed,
    )
    curve.draw(out / "results.csv", out / "curve.png", teachers, prepared)
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
    if aware.quantization_of(loaded.model) is not None:
        raise UnsupportedModelError(
            "this model was trained quantisation-aware, which folds its batch-norm; start from the one before, or "
            "continue an interrupted run with resume=True"
        )
    if loaded.model.is_fused():
        raise UnsupportedModelError("this model's batch-norm is fused into its convolutions; pass it as loaded")
    return loaded


def _prepare(student: YOLO, original: YOLO, activation: str, images: list[torch.Tensor]) -> None:
    """Start a swapped model, on the CPU, where training has the least left to do; see :mod:`.rescaling`."""
    if activation == "relu6":
        groups = rescaling.below_bound(student.model.float().cpu(), original.model.float(), images)
        LOGGER.info("%d groups of features scaled below 6", groups)
    rescaling.renormalise(student.model.float().cpu(), images)


def _check_changes(activation: str | None, target: str | None, granularity: str | None) -> str | None:
    """Refuse what cannot be changed; return the granularity with the target's default filled in.

    Raises:
        OptionError: an unknown name, or nothing to change.
    """
    if activation is not None:
        check(activation)
    elif target is None:
        raise OptionError("nothing to change: pass activation='relu6', for example, or target='tflite', or both")
    if target is None:
        if granularity is not None:
            raise OptionError(f"granularity={granularity!r} needs target=, the format to train for")
        return None
    if target not in aware.TARGETS:
        raise OptionError(
            f"target={target!r} is not one of {', '.join(map(repr, aware.TARGETS))}; a checkpoint for 'tflite' exports "
            "to 'edgetpu' and 'saved_model', too"
        )
    profile = PROFILES[target]
    require_packages(profile)
    if granularity is not None and granularity not in profile.granularity:
        raise OptionError(f"granularity={granularity!r} is not one of {', '.join(map(repr, profile.granularity))}")
    return granularity or profile.granularity[0]


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


def _started(file: Path, *given: str | None) -> list[str | None]:
    """The activation, target and granularity that a run was started with.

    Raises:
        OptionError: others are given now.
    """
    started = json.loads(file.read_text())
    for name, now, before in zip(("activation", "target", "granularity"), given, started, strict=True):
        if now not in {None, before}:
            raise OptionError(
                f"{name}={now!r} but the run to resume was started with {before!r}; leave {name} out, or start anew"
            )
    return started


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
        if trainer.device.type == "cpu":
            import torch

            torch.set_num_threads(os.cpu_count() or 1)  # upstream leaves one core idle: of two, half
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
