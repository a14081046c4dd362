"""Measure all models of a file, one after the other; what one of them ends in leaves the others alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..demo.dataset import data_set
from ..errors import EdgeQuantError, ModelsFileError
from ..files import atomic_write
from ..machine import Facts, facts
from ..processes import usable_threads
from ..upstream import data as data_sets
from ..upstream.models import YAML
from .models import DRAWN, Entry
from .run import Row, Settings, WorkerError, run, task

#: Of images that are drawn: how many to calibrate and to validate on, and from which seed.
CALIBRATION, VALIDATION, SEED = 128, 500, 1


@dataclass(frozen=True)
class Result:
    """What came of a model.

    Attributes:
        name, checkpoint, task, imgsz, nms_free: of the entry; of the checkpoint the file's name.
        data: the data set's YAML, its name alone, or that its images are drawn.
        calibrated: number of images that files were calibrated on.
        validated: number of images that the model and its files were validated on.
        threads: of the interpreters when they were timed.
        facts: the machine and its software.
        rows: FP32 first; empty if it could not be validated.
        error: why there are no more rows; None if all were tried.
    """

    name: str
    checkpoint: str
    task: str
    imgsz: tuple[int, int]
    nms_free: bool
    data: str
    calibrated: int | None
    validated: int | None
    threads: int
    facts: Facts
    rows: tuple[Row, ...] = field(default=())
    error: str | None = None

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong, a line each: errors, and rows that keep less than they should; empty if nothing is."""
        lines = [] if self.error is None else [f"{self.name}: {self.error}"]
        for row in self.rows:
            file = f"{self.name}, {row.format} {row.head} {row.granularity}"
            if row.error is not None:
                lines.append(f"{file}: {row.error}")
            if row.is_short:
                lines.append(
                    f"{file}: keeps {row.retention:.2%} ± {row.retention_error or 0:.2%}, and should {row.keeps:.2%}"
                )
        return tuple(lines)


def check_tasks(entries: Sequence[Entry], folder: Path) -> dict[str, str]:
    """Load each checkpoint once, so that a wrong task is said before hours of work.

    Args:
        entries: models whose files are there.
        folder: for logs, one folder a model.

    Returns:
        Why a checkpoint could not be loaded, by the entry's name.

    Raises:
        ModelsFileError: a checkpoint is of another task than its entry says.
    """
    broken = {}
    for entry in entries:
        try:
            loaded = task(entry.checkpoint, folder / entry.name)
        except WorkerError as error:
            broken[entry.name] = str(error)
            continue
        if loaded != entry.task:
            raise ModelsFileError(
                f"{entry.name}: 'task' is {entry.task!r}, and '{entry.checkpoint.name}' is a model of task {loaded!r}"
            )
    return broken


def run_all(
    entries: Sequence[Entry],
    folder: Path,
    report: Callable[[str], None],
    show: Callable[[Sequence[Row]], None] = lambda rows: None,
    threads: int | None = None,
    images: int = 0,
) -> Iterator[Result]:
    """Measure models, and yield what came of each when it is done.

    Args:
        entries: models whose files are there.
        folder: receives the files, the logs and the drawn images of each model in a folder of its own.
        report: told what is being done.
        show: given all rows so far of a model whenever one is filled.
        threads: of the interpreters when they are timed; None for all cores.
        images: number of validation images to time from image to boxes; 0 for none.

    Raises:
        ModelsFileError: a checkpoint is of another task than its entry says; nothing was measured.
    """
    if not entries:
        return
    report(f"loading {len(entries)} checkpoint{'s' * (len(entries) > 1)}")
    broken = check_tasks(entries, folder)
    for number, entry in enumerate(entries, 1):

        def tell(step: str, title: str = f"model {number} of {len(entries)}, {entry.name}") -> None:
            report(f"{title}: {step}")

        yield measure(entry, folder / entry.name, tell, show, threads, images, broken.get(entry.name))


def measure(
    entry: Entry,
    folder: Path,
    report: Callable[[str], None],
    show: Callable[[Sequence[Row]], None] = lambda rows: None,
    threads: int | None = None,
    images: int = 0,
    error: str | None = None,
) -> Result:
    """Measure one model; arguments as in :func:`run_all`, and an error if it is known beforehand that it cannot be.

    An error of ours ends in :attr:`Result.error`, beside the rows that were filled before.
    """
    started, latest = facts(), ()
    calibrated = None

    def keep(rows: Sequence[Row]) -> None:
        nonlocal latest
        latest = tuple(rows)
        show(rows)

    threads = usable_threads() if threads is None else threads
    if error is None:
        try:
            data = data_of(entry, folder, report)
            data_sets.check(data, [entry.calibration_split, "val"], entry.task)
            calibrated = data_sets.share(data, entry.calibration_split, entry.fraction)
            settings = Settings(
                entry.checkpoint,
                data,
                entry.imgsz,
                entry.calibration_split,
                fraction=entry.fraction,
                threads=threads,
                nms_free=entry.nms_free,
                images=images,
            )
            latest = tuple(run(settings, entry.rows, folder, report, keep))
        except EdgeQuantError as caught:
            error = str(caught)
    return Result(
        entry.name,
        entry.checkpoint.name,
        entry.task,
        entry.imgsz,
        entry.nms_free,
        DRAWN if entry.data is None else entry.data.name,
        calibrated,
        latest[0].images if latest else None,
        threads,
        started,
        latest,
        error,
    )


def data_of(entry: Entry, folder: Path, report: Callable[[str], None] = lambda step: None) -> Path:
    """The YAML to measure a model on: the entry's own, one beside with its folders of validation images, or drawn.

    Args:
        entry: the model.
        folder: for what is written.
        report: told if images are drawn.
    """
    if entry.data is None:
        report(f"drawing {CALIBRATION} images to calibrate on and {VALIDATION} to validate on")
        return data_set(folder / "data", CALIBRATION, VALIDATION, max(entry.imgsz), SEED, entry.task)
    if not entry.val:
        return entry.data
    content = YAML.load(entry.data)
    content = {**content, "path": content.get("path") or str(entry.data.parent.resolve()), "val": list(entry.val)}
    folder.mkdir(parents=True, exist_ok=True)
    YAML.save(folder / "data.yaml", content)
    return folder / "data.yaml"


def save(results: Sequence[Result], path: Path) -> None:
    """Write results as JSON, a key for each model."""
    values = {result.name: asdict(result) for result in results}
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def load(path: Path) -> list[Result]:
    """Read what :func:`save` wrote.

    Raises:
        ModelsFileError: it is something else, or was written by a release with other columns.
    """
    try:
        return [_result(values) for values in json.loads(path.read_text(encoding="utf-8")).values()]
    except FileNotFoundError as error:
        raise ModelsFileError(f"results '{path}' not found (looked in {Path.cwd()})") from error
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ModelsFileError(f"'{path}' has no results of this release: {error}; measure again") from error


def _result(values: dict[str, Any]) -> Result:
    rows = tuple(Row(**row) for row in values["rows"])
    machine = Facts(**{**values["facts"], "features": tuple(values["facts"]["features"])})
    height, width = values["imgsz"]
    return Result(**{**values, "imgsz": (height, width), "facts": machine, "rows": rows})


def merged(older: Sequence[Result], newer: Sequence[Result], entries: Sequence[Entry]) -> list[Result]:
    """Newer results in the place of older ones of the same model, in the order of the entries, and none beside.

    What a file should keep is taken from the entries: it may have been set anew since the measuring.
    """
    by_name = {result.name: result for result in (*older, *newer)}
    return [_held_to(by_name[entry.name], entry) for entry in entries if entry.name in by_name]


def _held_to(result: Result, entry: Entry) -> Result:
    limits = {(row.format, row.head, row.granularity): row.keeps for row in entry.rows}
    rows = (replace(row, keeps=limits.get((row.format, row.head, row.granularity))) for row in result.rows)
    return replace(result, rows=tuple(rows))
