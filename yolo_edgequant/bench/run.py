"""Run the cases of a bench one after the other and collect their rows."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from ..errors import EdgeQuantError, OptionError
from ..options import ExportOptions
from ..processes import environment, usable_threads
from ..targets.formats import PROFILES, resolve
from ..upstream.image_statistics import ImageStatistics
from ..verification import bootstrap
from ..verification.score_shift import score_shift

#: Formats that this machine can run as well as make.
FORMATS = tuple(name for name in PROFILES if name != "edgetpu")


@dataclass(frozen=True)
class Settings:
    """What all rows of a bench share.

    Attributes:
        model: checkpoint.
        data: data set's YAML.
        imgsz: (height, width) of the input.
        calibration_split, validation_split: of the data set.
        fraction: share of the calibration split to calibrate on, above 0 and at most 1.
        threads: of the interpreters when they are timed.
        nms_free: take the NMS-free output of YOLO26 and YOLOv10, FP32 included.
        images: number of validation images to time from image to boxes; 0 for none.
    """

    model: Path
    data: Path
    imgsz: tuple[int, int] = (640, 640)
    calibration_split: str = "train"
    validation_split: str = "val"
    fraction: float = 1.0
    threads: int = usable_threads()
    nms_free: bool = False
    images: int = 0


@dataclass(frozen=True)
class Row:
    """One line of the table; None where there is no such figure.

    Attributes:
        format: Ultralytics' name, or ``pytorch`` for the FP32 reference.
        head, granularity, ranges, corrections: the options; head is ``stock`` for upstream's own export.
        map, map50: mAP50-95 and mAP50, 0 to 1.
        retention: mAP50-95 as a share of the FP32 row's.
        latency_ms: median of the interpreter alone, milliseconds.
        size_mb: of the file, 10^6 bytes.
        export_s: seconds of the export call.
        peak_mb: peak resident memory of the exporting process and its children, 10^6 bytes.
        image_ms: median from image to boxes, milliseconds; ours through the runtime, stock through ``YOLO.predict``.
        decoding_ms: of this, what follows the interpreter.
        retention_error: standard error of the retention, by bootstrap over the validation images.
        f1_float, f1: of the FP32 model and of this one at the threshold of scores where FP32's is best, 0 to 1.
        threshold_shift: how much higher this one's best threshold is.
        score_change: mean change of the score of an object that both models found.
        images: number of validation images; None of tasks without boxes.
        keeps: lower limit of the retention, 0 to 1; None where none was set.
        error: why figures are missing.
    """

    format: str
    head: str
    granularity: str = "-"
    ranges: str = "-"
    map: float | None = None
    map50: float | None = None
    retention: float | None = None
    latency_ms: float | None = None
    size_mb: float | None = None
    export_s: float | None = None
    peak_mb: float | None = None
    image_ms: float | None = None
    decoding_ms: float | None = None
    retention_error: float | None = None
    f1_float: float | None = None
    f1: float | None = None
    threshold_shift: float | None = None
    score_change: float | None = None
    corrections: str = "-"
    images: int | None = None
    keeps: float | None = None
    error: str | None = None

    @property
    def is_short(self) -> bool:
        """True if it keeps less than it should, by more than twice its standard error: more than chance explains."""
        if self.keeps is None or self.retention is None:
            return False
        return self.retention + 2 * (self.retention_error or 0) < self.keeps


class WorkerError(EdgeQuantError, RuntimeError):
    """A step of the bench failed in its process; the message is the last line it wrote."""


def cases(
    formats: Iterable[str],
    heads: Sequence[str],
    granularities: Sequence[str],
    ranges: Sequence[str],
    baseline: bool,
    corrections: Sequence[str] = (),
) -> list[Row]:
    """The rows to fill: every possible combination, after each format's stock row if `baseline`.

    Raises:
        OptionError: a format or another value is unknown, or a format can hold none of the combinations.
    """
    names = ("head", "granularity", "ranges", "corrections")
    values = itertools.product(heads, granularities, ranges or (None,), corrections or (None,))
    wanted = [ExportOptions(**dict(zip(names, chosen, strict=True))) for chosen in values]
    rows = []
    for name in formats:
        if name not in FORMATS:
            raise OptionError(f"format {name!r} is not one that bench can run: {', '.join(FORMATS)}")
        if baseline:
            rows.append(Row(name, "stock"))
        possible = []
        for options in wanted:
            try:
                request = resolve(PROFILES[name], options)
            except OptionError:
                continue  # not every format has every combination; none at all is an error below
            values = (request.head, request.granularity, request.ranges, request.corrections)
            head, granularity, estimator, corrected = map(str, values)
            possible.append(Row(name, head, granularity, estimator, corrections=corrected))
        if not possible:
            raise OptionError(
                f"format {name!r} has none of head={','.join(heads)}, granularity={','.join(granularities)}, "
                f"ranges={','.join(ranges)}, corrections={','.join(corrections)}"
            )
        rows += possible
    return rows


def run(
    settings: Settings,
    rows: Sequence[Row],
    folder: Path,
    report: Callable[[str], None],
    show: Callable[[Sequence[Row]], None] = lambda rows: None,
) -> list[Row]:
    """Fill the rows.

    Args:
        settings: what they share.
        rows: from :func:`cases`; the FP32 reference is put in front of them.
        folder: receives each row's exported file in a folder of its own.
        report: told what is being done.
        show: given all rows so far whenever one is filled.

    Returns:
        All rows, the FP32 reference first. A row whose export failed has an error instead of figures; if the files
        could not be timed, each has an error beside its other figures.

    Raises:
        WorkerError: the FP32 model could not be validated, so there is nothing to compare with.
    """
    validation = {
        "data": str(settings.data.resolve()),
        "imgsz": max(settings.imgsz),
        "split": settings.validation_split,
    }
    report("validating the FP32 model")
    original = {"path": str(settings.model.resolve()), "stock": True, **_branch(settings)}
    reference, _ = _step("validate", {**original, **validation, "images": _images(folder)}, folder)
    figures = {"map": reference["map"], "map50": reference["map50"], "retention": 1.0}
    done = [Row("pytorch", "fp32", **figures, images=_count(reference))]
    show(done)
    paths: dict[int, str] = {}
    for number, row in enumerate(rows, 1):
        name = f"{row.format} {row.head} {row.granularity} {row.ranges} {row.corrections}"
        place = folder / name.replace(" -", "").replace(" ", "_")
        try:
            report(f"[{number}/{len(rows)}] exporting {name}")
            filled, path = export(settings, row, place)
            report(f"[{number}/{len(rows)}] validating {name}")
            arguments = {"path": path, "stock": row.head == "stock", "images": _images(place), **validation}
            metrics, _ = _step("validate", arguments, place)
        except WorkerError as error:
            done.append(replace(row, error=str(error)))
            show(done)
            continue
        paths[len(done)] = path
        retention = metrics["map"] / reference["map"] if reference["map"] else None
        figures = {"map": metrics["map"], "map50": metrics["map50"], "retention": retention}
        figures["images"] = _count(metrics)
        done.append(replace(filled, **figures, **_by_image(reference, metrics)))
        show(done)
    if paths:
        report(f"timing {len(paths)} files in turns")
        _time(done, list(paths), "latency", {"paths": list(paths.values())}, settings, folder)
    if paths and settings.images:
        report(f"timing {len(paths)} files on {settings.images} images, from image to boxes")
        arguments = {
            "paths": list(paths.values()),
            "stock": [done[index].head == "stock" for index in paths],
            "data": validation["data"],
            "split": settings.validation_split,
            "imgsz": list(settings.imgsz),
            "count": settings.images,
        }
        _time(done, list(paths), "images", arguments, settings, folder)
    return done


def _images(place: Path) -> str:
    """The file for what was found in each image."""
    return str(place.resolve() / "images.npz")


def _count(metrics: dict[str, Any]) -> int | None:
    return len(ImageStatistics.load(Path(metrics["images"])).files) if "images" in metrics else None


def _by_image(reference: dict[str, Any], metrics: dict[str, Any]) -> dict[str, Any]:
    """The figures of a row that need what was found in each image; none of tasks without boxes."""
    if not reference["map"] or "images" not in reference or "images" not in metrics:
        return {}
    original, quantized = (ImageStatistics.load(Path(of["images"])) for of in (reference, metrics))
    shift = score_shift(original, quantized)
    return {
        "retention_error": bootstrap.retention(original, quantized).error,
        "f1_float": shift.f1_float,
        "f1": shift.f1,
        "threshold_shift": shift.threshold_shift,
        "score_change": shift.score_change,
    }


def export(settings: Settings, row: Row, place: Path) -> tuple[Row, str]:
    """Make a row's file in a process of its own.

    Args:
        settings: of the bench.
        row: what to export.
        place: folder for the file, made if it is not there.

    Returns:
        The row with what the export cost, and the file's path.

    Raises:
        WorkerError: the export failed.
    """
    file, peak = _step("export", _export_arguments(settings, row, place), place)
    return replace(row, size_mb=file["bytes"] / 1e6, export_s=file["seconds"], peak_mb=peak / 1e6), file["path"]


def task(model: Path, folder: Path) -> str:
    """The task of a checkpoint, which is loaded in a process of its own.

    Args:
        model: checkpoint.
        folder: for the log.

    Raises:
        WorkerError: it cannot be loaded.
    """
    return _step("task", {"model": str(model.resolve())}, folder)[0]["task"]


def _time(
    done: list[Row], indices: list[int], step: str, arguments: dict[str, Any], settings: Settings, folder: Path
) -> None:
    """Add what a timing step of the worker says of each file to its row."""
    try:
        times, _ = _step(step, {"threads": settings.threads, **arguments}, folder)
    except WorkerError as error:
        for index in indices:
            done[index] = replace(done[index], error=f"not timed: {error}")
        return
    for position, index in enumerate(indices):
        if step == "latency":
            figures = {"latency_ms": times["milliseconds"][position]}
        else:
            figures = {"image_ms": times["milliseconds"][position], "decoding_ms": times["decoding"][position]}
        done[index] = replace(done[index], **figures)


def _export_arguments(settings: Settings, row: Row, place: Path) -> dict[str, Any]:
    place.mkdir(parents=True, exist_ok=True)
    model = shutil.copy(settings.model, place)
    stock = row.head == "stock"
    chosen = {name: getattr(row, name) for name in ("head", "granularity", "ranges", "corrections")}
    ours = {} if stock else {name: value for name, value in chosen.items() if value != "-"}
    return {
        "model": str(Path(model).resolve()),
        "stock": stock,
        "format": row.format,
        "quantize": 8,
        "data": str(settings.data.resolve()),
        "split": settings.calibration_split,
        "fraction": settings.fraction,
        "imgsz": list(settings.imgsz),
        **_branch(settings),
        **ours,
    }


def _branch(settings: Settings) -> dict[str, Any]:
    return {"nms": False} if settings.nms_free else {}


def _step(name: str, arguments: dict[str, Any], folder: Path) -> tuple[dict[str, Any], int]:
    """Run one step of the worker; its result, and the peak resident memory of its processes in bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder.resolve() / f"{name}.log"
    with tempfile.TemporaryDirectory() as work, log.open("w") as output:
        result = Path(work) / "result.json"
        process = subprocess.Popen(
            [sys.executable, "-m", "yolo_edgequant.bench.worker", name, json.dumps(arguments), str(result)],
            cwd=work,
            env=environment(YOLO_AUTOINSTALL="False", YOLO_OFFLINE="True"),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        peak = peak_memory(process)
        if process.returncode or not result.is_file():
            output.flush()
            lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
            reason = lines[-1] if lines else f"exit status {process.returncode}"
            raise WorkerError(f"{name} failed: {reason} (log: {log})")
        return json.loads(result.read_text()), peak


def peak_memory(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process; the largest sum of resident memory seen over it and its children, in bytes."""
    peak = 0
    done = threading.Event()

    def sample() -> None:
        nonlocal peak
        while not done.is_set():
            total = 0
            try:
                root = psutil.Process(process.pid)
                family = [root, *root.children(recursive=True)]
            except psutil.NoSuchProcess:
                return
            for member in family:
                try:
                    total += member.memory_info().rss
                except psutil.NoSuchProcess:
                    continue  # it ended between the two calls
            peak = max(peak, total)
            time.sleep(0.02)

    watcher = threading.Thread(target=sample, daemon=True)
    watcher.start()
    process.wait()
    done.set()
    watcher.join()
    return peak
