"""Recovery: a model with other activations, or with the rounding of an INT8 file, learns to answer as the original did.

The recipe stands on Ultralytics' trainer and its distillation. The original is the teacher; outputs are matched by the
term in :mod:`.training.distillation`, neck features by upstream's own where ``dis`` is above 0.
"""

from __future__ import annotations

import copy
import json
import math
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import nn

from .errors import DataError, OptionError, TrainingError, UnsupportedModelError
from .files import atomic_write
from .options import Corrections, ExportOptions, Granularity, Head
from .processes import usable_threads
from .targets.formats import PROFILES, Format, require_packages, resolve
from .training import curve, rescaling
from .training.activations import check, swap_activation
from .training.fake_quantization import FakeQuantization, quantization_of
from .training.qat import TARGETS, FilePoints, find_points, with_fake_quantization
from .upstream import compat, export_head, heads, validation
from .upstream import data as data_sets
from .upstream.data import ImageArrays, TrainingImages
from .upstream.models import YOLO, has_common_forward, quiet, training_arguments

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

#: The same for quantization-aware training with the model's own activations, which starts close to its end: on YOLOv8n
#: 30 steps took it a seventh nearer to its teacher on images not trained on, and with five times the rate further away.
QAT_RECIPE: dict[str, Any] = {
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

_CALIBRATED_ON = 256  # images at most, for the ranges to start from
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
        prepared: the same with features below ReLU6's bound and batch-norm anew (:mod:`.training.rescaling`), before
            training.
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
        activation: a key of :data:`.training.activations.ACTIVATIONS` to swap in; None keeps the model's own.
        target: train quantization-aware for this export format: one of :data:`.training.qat.TARGETS`. The
            checkpoint then exports to it (those of tflite to litert, edgetpu and saved_model, too) without
            calibration, with the ranges that were trained.
        granularity: with `target`, of the weights' steps: ``channel`` or ``tensor``; None for the target's default.
        teacher: a ``YOLO`` or a checkpoint's path; the model itself if None. It may be larger, of the same classes.
        out: folder of the run, for ``weights/best.pt``, ``weights/last.pt``, ``curve.png`` and ``finetune.json``.
        resume: continue the interrupted run in `out` with its own changes, settings and teacher.
        console: where to show the progress; standard output if None.
        train: Ultralytics' training arguments over those in :data:`RECIPE`, for example ``epochs=20, device=0``.

    Raises:
        OptionError: an unknown activation, target or argument, nothing to change, nothing to resume, or a model that
            does not exist.
        DataError: a split is missing, or the classes are not as many as the model's.
        UnsupportedModelError: no trained model in PyTorch, or one that does not detect.
        TrainingError: the loss is not a number or explodes; the last good checkpoint is kept.
    """
    console, out = console or Console(), Path(out).resolve()
    teacher_file, best = out / "teacher.pt", out / "weights" / "best.pt"
    interrupted, start = None, None
    if resume:
        interrupted = _interrupted(out / "weights" / "last.pt")
        start = _Start.read(out / _Start.FILE, activation, target, granularity)
        activation, target, granularity = start.activation, start.target, start.granularity
    granularity = _check_changes(activation, target, granularity)
    _check_arguments(train)
    student = _loaded(model)
    _check_data(data, student)
    recipe = {"imgsz": student.overrides["imgsz"], **(QAT_RECIPE if activation is None else RECIPE), **train}
    settings = {"data": str(data), "distill_model": str(teacher_file), "save_dir": str(out)}
    with quiet(), _threads_put_back():
        if start is None:
            out.mkdir(parents=True, exist_ok=True)
            _loaded(model if teacher is None else teacher).save(teacher_file)  # its own copy, for resuming
            start, student = _prepared(
                student, teacher_file, str(data), activation, target, granularity, recipe, train, console
            )
            start.write(out / _Start.FILE)
            trained, settings = student, {**recipe, **settings}
        else:
            trained, settings = interrupted, {"resume": True, **settings}
        began = time.monotonic()
        with _watched(trained, console):
            try:
                trained.train(activation=activation, **settings)
            except subprocess.CalledProcessError as error:
                raise TrainingError(
                    f"training on several devices ended with exit status {error.returncode}; its processes' messages "
                    f"are above, and what was kept is in '{out}'"
                ) from error
        seconds = time.monotonic() - began
        recovered = _accuracy(YOLO(best), data, train)
    done = FineTuned(
        checkpoint=best,
        activation=activation,
        target=target,
        granularity=granularity,
        teacher=start.teacher,
        changed=start.changed,
        prepared=start.prepared,
        recovered=recovered,
        epochs=curve.draw(out / "results.csv", out / "curve.png", start.teacher, start.prepared),
        seconds=seconds,
        seed=trained.trainer.args.seed,
    )
    with atomic_write(out / "finetune.json") as temporary:
        temporary.write_text(json.dumps(asdict(done), indent=1, default=str) + "\n")
    return done


@dataclass(frozen=True)
class _Start:
    """What a run started with, kept for its resumption; accuracies are mAP50-95, 0 to 1."""

    FILE = "started.json"

    activation: str | None
    target: str | None
    granularity: str | None
    teacher: float
    changed: float
    prepared: float

    def write(self, file: Path) -> None:
        with atomic_write(file) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, file: Path, activation: str | None, target: str | None, granularity: str | None) -> _Start:
        """The start of the run to resume.

        Raises:
            OptionError: other changes are asked for now, or the file is damaged.
        """
        try:
            start = cls(**json.loads(file.read_text()))
            for name, value in asdict(start).items():
                if not isinstance(value, float if name in {"teacher", "changed", "prepared"} else str | None):
                    raise ValueError(f"{name} is {value!r}")
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise OptionError(f"nothing to resume: '{file}' cannot be read ({error}); start anew") from error
        given = {"activation": activation, "target": target, "granularity": granularity}
        for name, now in given.items():
            before = getattr(start, name)
            if now not in {None, before}:
                raise OptionError(
                    f"{name}={now!r} but the run to resume was started with {before!r}; leave {name} out, or start anew"
                )
        return start


def _prepared(
    student: YOLO,
    teacher_file: Path,
    data: str,
    activation: str | None,
    target: str | None,
    granularity: str | None,
    recipe: dict[str, Any],
    train: dict[str, Any],
    console: Console,
) -> tuple[_Start, YOLO]:
    """Change a model and start it where training has the least left to do; also what each step did to its accuracy."""
    teacher = _accuracy(_loaded(teacher_file), data, train)
    changed, imgsz = None, recipe["imgsz"]
    if activation is not None:
        original = _loaded(student)
        swap_activation(student, activation)
        changed = _accuracy(student, data, train)
        console.print(f"preparing the model for {activation}")
        images = list(TrainingImages(data, imgsz, _PREPARED_ON))
        if activation == "relu6":
            groups = rescaling.scale_below_relu6(student.model.float().cpu(), original.model.float(), images)
            console.print(f"{groups} groups of features scaled below 6")
        rescaling.recalibrate_batch_norm(student.model.float().cpu(), images)
    if target is not None:
        console.print(f"calibrating for {target}, to start from its ranges")
        points = _points(student, data, Format(target), Granularity(granularity), imgsz)
        (images,) = TrainingImages(data, imgsz, _CORRECTED_ON, batch=_CORRECTED_ON)
        student = with_fake_quantization(student, points, images)
    prepared = _accuracy(student, data, train)
    changed = prepared if changed is None else changed
    return _Start(activation, target, granularity, teacher, changed, prepared), student


def _points(model: YOLO, data: str, target: Format, granularity: Granularity, imgsz: int) -> FakeQuantization:
    """Where the model's INT8 file rounds, with the ranges that calibration on training images finds.

    Raises:
        UnsupportedModelError: the file's points cannot be found in the model; see :func:`.training.qat.find_points`.
    """
    if not has_common_forward(model.model):
        raise UnsupportedModelError(
            f"a {type(model.model).__name__} cannot be trained quantization-aware: its forward pass is its own"
        )
    images = TrainingImages(data, imgsz, _CALIBRATED_ON, batch=1)
    shape = (1, model.model.yaml.get("channels", 3), imgsz, imgsz)
    parts = _openvino_points if target == Format.OPENVINO else _tflite_points
    return find_points(model.model, parts(model.model, images, target, granularity, shape), target, granularity, shape)


def _tflite_points(
    module: nn.Module, images: TrainingImages, target: Format, granularity: Granularity, shape: tuple[int, ...]
) -> FilePoints:
    from .pipeline import tflite  # needs the litert extra
    from .training.tflite_points import TFLitePoints

    def calibrated(head: Head) -> Any:
        # other corrections change weights, which are trained here
        request = resolve(
            PROFILES[target], ExportOptions(head=head, granularity=granularity, corrections=Corrections.CELLS)
        )
        prepared, facts = export_head.as_exported(module, shape[2:])
        contract = export_head.prepare(prepared, request, shape[2:], facts)
        graph, contract = tflite.convert(prepared, torch.zeros(shape), contract)
        return tflite.calibrate(graph, contract, request, ImageArrays(images, contract.channels_last))

    return TFLitePoints(calibrated(Head.RAW), calibrated(Head.INT8), shape)


def _openvino_points(
    module: nn.Module, images: TrainingImages, target: Format, granularity: Granularity, shape: tuple[int, ...]
) -> FilePoints:
    from .pipeline import openvino  # needs the openvino extra
    from .training.openvino_points import OpenVINOPoints

    def quantized(head: Head) -> Any:
        request = resolve(PROFILES[target], ExportOptions(head=head, granularity=granularity))
        prepared, facts = export_head.as_exported(module, shape[2:])
        contract = export_head.prepare(prepared, request, shape[2:], facts)
        float_model = openvino.convert(prepared, torch.zeros(shape), contract)
        int8_model, _ = openvino.calibrate(float_model, contract, ImageArrays(images, False))
        return float_model, int8_model

    return OpenVINOPoints(quantized(Head.RAW), quantized(Head.INT8), shape)


@contextmanager
def _threads_put_back() -> Iterator[None]:
    """Give torch the number of threads again that it had."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _loaded(model: YOLO | str | Path) -> YOLO:
    """The checkpoint, or a copy of a ``YOLO``.

    Raises:
        OptionError: there is no such file.
        UnsupportedModelError: it is not a trained PyTorch model, or does not detect.
    """
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
    if heads.detection_head(loaded.model) is None:
        raise UnsupportedModelError(
            f"distillation needs a head that detects, but this is a {loaded.task} model; use "
            "model.train(activation=…) for it"
        )
    if quantization_of(loaded.model) is not None:
        raise UnsupportedModelError(
            "this model was trained quantization-aware, which folds its batch-norm; start from the one before, or "
            "continue an interrupted run with resume=True"
        )
    if loaded.model.is_fused():
        raise UnsupportedModelError("this model's batch-norm is fused into its convolutions; pass it as loaded")
    return loaded


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
    if target not in TARGETS:
        raise OptionError(
            f"target={target!r} is not one of {', '.join(repr(t.value) for t in TARGETS)}; a checkpoint for 'tflite' "
            "exports to 'edgetpu' and 'saved_model', too"
        )
    profile = PROFILES[target]
    require_packages(profile)
    if granularity is not None and granularity not in profile.granularity:
        raise OptionError(f"granularity={granularity!r} is not one of {', '.join(map(repr, profile.granularity))}")
    return str(granularity or profile.granularity[0])


def _check_arguments(train: dict[str, Any]) -> None:
    """Refuse arguments that upstream's trainer does not have, or that the recipe sets itself.

    Raises:
        OptionError: there is one.
    """
    for name in train:
        if name in _FIXED:
            raise OptionError(f"{name}= is not for finetune: {_FIXED[name]}")
        if name not in training_arguments():
            raise OptionError(f"{name}= is neither an argument of finetune nor one of Ultralytics' training arguments")


def _check_data(data: str | Path, model: YOLO) -> None:
    """Find the images before any work, without fetching anything.

    Raises:
        DataError: a split is missing, or the classes are not as many as the model's.
    """
    classes = data_sets.check(data, ["train", "val"])["nc"]
    if classes != len(model.names):
        raise DataError(
            f"data={str(data)!r} has {classes} classes and the model {len(model.names)}: a model learns new classes "
            "first, then new activations"
        )


def _interrupted(last: Path) -> YOLO:
    """The run's last checkpoint.

    Raises:
        OptionError: there is none, or the run is finished.
    """
    if not last.is_file():
        raise OptionError(f"nothing to resume: there is no '{last}'; leave resume out to start")
    run = YOLO(last)
    if run.ckpt.get("epoch", -1) < 0:
        raise OptionError(f"nothing to resume: the run in '{last.parents[1]}' is finished; choose another out=")
    return run


def _accuracy(model: YOLO, data: str | Path, train: dict[str, Any]) -> float:
    """MAP50-95 on the validation split, of the task's own output (masks, keypoints) where it has one besides boxes."""
    shared = {name: train[name] for name in ("imgsz", "device", "batch", "split") if name in train}
    return validation.accuracy(model, data, **shared)


@contextmanager
def _watched(model: YOLO, console: Console) -> Iterator[None]:
    """Show the progress of a model's training, and end it when it diverges."""
    progress = TrainingProgress(console)
    added = {
        "on_train_start": progress.start,
        "on_train_batch_end": progress.batch,
        "on_train_epoch_end": progress.epoch,
        "on_fit_epoch_end": progress.validated,
        "teardown": progress.stop,
    }
    for event, callback in added.items():
        model.add_callback(event, callback)
    try:
        yield
    finally:
        progress.stop()
        for event, callback in added.items():
            model.callbacks[event].remove(callback)


class TrainingProgress:
    """Callbacks of Ultralytics' trainer: a progress bar, and an end to a training that diverges.

    In a training on several devices a copy of it goes to the processes of that, which show it on standard output.

    Args:
        console: where to show it.
    """

    def __init__(self, console: Console) -> None:
        self._console: Console | None = console
        self._progress: Progress | None = None
        self._bar: Any = None
        self._least = math.inf

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs; a console belongs to this one."""
        return {**self.__dict__, "_console": None, "_progress": None}

    def start(self, trainer: Any) -> None:
        """Begin the bar; take all cores where the CPU trains."""
        if trainer.device.type == "cpu":
            torch.set_num_threads(usable_threads())  # upstream leaves one core idle: of two, half
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=self._console or Console())
        batches = len(trainer.train_loader)
        self._bar = self._progress.add_task(
            "training", total=batches * trainer.epochs, completed=batches * trainer.start_epoch
        )
        self._progress.start()

    def stop(self, trainer: Any = None) -> None:
        """End the bar."""
        if self._progress is not None:
            self._progress.stop()

    def batch(self, trainer: Any) -> None:
        """A step is done."""
        loss = trainer.loss.item()
        if not math.isfinite(loss):
            raise _diverged(trainer, f"loss {loss}")
        self._progress.advance(self._bar)

    def epoch(self, trainer: Any) -> None:
        """An epoch is done."""
        loss = compat.total_loss(trainer)
        if not loss < _EXPLODED * self._least:
            raise _diverged(trainer, f"loss {loss:.3g}, {loss / self._least:.1f} times its least")
        self._least = min(self._least, loss)

    def validated(self, trainer: Any) -> None:
        """An epoch is validated."""
        if trainer.epoch == trainer.epochs:
            return  # the best checkpoint once more, after the last epoch
        accuracy = validation.main_map(trainer.metrics)
        self._progress.update(self._bar, description=f"epoch {trainer.epoch + 1}: mAP50-95 {accuracy:.4f}")


def _diverged(trainer: Any, what: str) -> TrainingError:
    kept = f"the last good checkpoint is '{trainer.last}'" if trainer.last.is_file() else "no epoch was finished"
    return TrainingError(
        f"training diverged in epoch {trainer.epoch + 1} ({what}); {kept}; start again with a smaller lr0= "
        f"(it was {trainer.args.lr0:g})"
    )
