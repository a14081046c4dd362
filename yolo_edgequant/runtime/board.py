"""Is a file right on this board, and how fast? CPU and delegate side by side, and one JSON row to send back.

Usage:
    python -m yolo_edgequant.runtime.board FILE --images FOLDER [--delegate vx|edgetpu|LIBRARY] [--cpu-file FILE]
        [--labels FOLDER] [--limit N] [--runs N] [--threads N] [--out row.json] [--note TEXT]

It needs NumPy, OpenCV and one interpreter: pip install 'yolo-edgequant[run]'. Labels are in Ultralytics' format, and
are looked for where Ultralytics does. Files that are right on a CPU have been wrong on an NPU, so what the delegate
writes is compared with what the CPU writes, tensor by tensor, and object by object. The exit status is 1 if the two
disagree: if one finds less than OBJECTS of the other's objects, or if the accuracy differs by more than POINTS.
Rounding differs between any two sets of kernels, so the tensors alone decide nothing; docs/devices.md has how much is
usual. An error is one line, and exit status 2.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from .. import contract
from .._version import __version__
from ..errors import EdgeQuantError, InferenceError
from ..files import atomic_write
from ..processes import usable_threads
from .accuracy import Accuracy, Boxes, accuracy, labels_folder, read_labels
from .detections import Detections
from .detector import Detector
from .interpreter import Tensor, times
from .nms import overlaps
from .sources import images

OBJECTS = 0.9  # least share of the objects of each that the other finds, too
POINTS = 0.02  # largest difference of mAP50-95
SCORE, LOWER, OVERLAP = 0.35, 0.25, 0.5  # an object over the first is found if over the second, with this IoU
LEAST_SCORE = 0.001  # of detections that an accuracy is counted from
COMPARED = 20  # images whose raw outputs are compared
RUNS = 100


@dataclass(frozen=True)
class Speed:
    """How long the interpreter takes, milliseconds; the letterbox and the decoding (with NMS and masks) beside it.

    Attributes:
        first: the first call, in which some delegates compile the graph: the warm-up.
        median, p95: of `runs` calls after it.
        letterbox, decoding: medians over the images.
    """

    first: float
    median: float
    p95: float
    runs: int
    letterbox: float
    decoding: float


@dataclass(frozen=True)
class TensorDifference:
    """An output by the delegate beside the same by the CPU, over the compared images.

    Attributes:
        name: of the output.
        equal: share of values that are the same.
        largest, mean: difference in steps of the output's scale; of float outputs of a 255th of their range.
        snr_db: signal to noise, the CPU's values as the signal; None if they are equal.
    """

    name: str
    equal: float
    largest: float
    mean: float
    snr_db: float | None


@dataclass(frozen=True)
class Side:
    """What came of the CPU, or of the delegate; the accuracy is None without labels."""

    name: str
    speed: Speed
    accuracy: Accuracy | None


@dataclass(frozen=True)
class Row:
    """All that was found, to send back.

    Attributes:
        sides: the CPU, then the delegate if there was one.
        tensors: one for each output.
        objects: the smaller of the shares of the CPU's objects that the delegate finds, and the other way round.
        problems: in words; empty if the two agree.
    """

    machine: dict[str, Any]
    file: dict[str, Any]
    images: int
    sides: list[Side]
    tensors: list[TensorDifference]
    objects: float | None
    problems: list[str]
    note: str


def measure(
    file: Path,
    source: str,
    delegate: str | None = None,
    cpu_file: Path | None = None,
    labels: Path | None = None,
    limit: int | None = None,
    runs: int = RUNS,
    threads: int | None = None,
    note: str = "",
    said: Callable[[str], Any] = lambda line: None,
) -> Row:
    """Run a file on a folder of images, on the CPU and by a delegate.

    Args:
        file: ``.tflite`` file, or an OpenVINO model's folder, from an export of ours.
        source: an image, or a folder of them.
        delegate: see :class:`.Detector`; None for the CPU alone.
        cpu_file: what the CPU runs, if `file` has been compiled for the delegate.
        labels: their folder; None to look for it.
        limit: number of images at most.
        runs: that the latency is the median of.
        threads: of the CPU; None for all cores.
        note: anything about the board, for the row.
        said: is told what happens.

    Raises:
        InferenceError: a compiled file without `cpu_file`, which no CPU runs.
        EdgeQuantError: a file, the delegate or an image cannot be read.
    """
    if cpu_file is None and delegate is not None and file.name.endswith("_edgetpu.tflite"):
        raise InferenceError(f"'{file}' is compiled and runs on no CPU; give the file from before with --cpu-file")
    pictures = list(islice(images(source), limit))
    folder = labels or labels_folder(Path(source) if Path(source).is_dir() else Path(source).parent)
    detectors = {"CPU": Detector(cpu_file or file, threads=threads)}
    if delegate is not None:
        said(f"loading {delegate}")
        detectors[delegate] = Detector(file, threads=threads, delegate=delegate)
    task = detectors["CPU"].task
    truth = None
    if task != "obb":  # rotated labels are not read here
        truth = [read_labels(folder / f"{Path(name).stem}.txt", image.shape[:2], task) for name, image in pictures]
        truth = truth if any(len(one.classes) for one in truth) else None
    sides, objects = [], []
    for name, detector in detectors.items():
        said(f"{name}: {len(pictures)} images, {runs} timed runs")
        side, mine = _side(name, detector, pictures, truth, runs)
        sides.append(side)
        objects.append(mine)
    tensors, share, problems = [], None, []
    if delegate is not None:
        said("comparing raw outputs")
        tensors = compare_tensors(*detectors.values(), [image for _, image in pictures[:COMPARED]], file)
        share = min(found_again(*objects), found_again(*objects[::-1]))
        problems = disagreements(sides, share)
    return Row(
        _machine(delegate, threads or usable_threads()),
        _facts(file),
        len(pictures),
        sides,
        tensors,
        share,
        problems,
        note,
    )


def disagreements(sides: Sequence[Side], objects: float) -> list[str]:
    """Why CPU and delegate do not agree, in words; none if they do."""
    problems = []
    if objects < OBJECTS:
        problems.append(f"only {objects:.1%} of the objects are found by both; {OBJECTS:.0%} is the bound")
    if sides[0].accuracy is not None and sides[1].accuracy is not None:
        apart = abs(sides[0].accuracy.map - sides[1].accuracy.map)
        if apart > POINTS:
            problems.append(f"mAP50-95 differs by {100 * apart:.1f} points; {100 * POINTS:.0f} is the bound")
    return problems


def found_again(one: Sequence[Boxes], other: Sequence[Boxes]) -> float:
    """Share of the objects of `one` with a score over SCORE that `other` has, too, over LOWER; 1 if there are none."""
    count = again = 0
    for mine, theirs in zip(one, other, strict=True):
        sure, rest = mine.scores > SCORE, theirs.scores > LOWER
        count += int(sure.sum())
        if not sure.any() or not rest.any():
            continue
        shared = np.nan_to_num(overlaps(mine.boxes[sure], theirs.boxes[rest]))
        again += int(((shared > OVERLAP) & (mine.classes[sure][:, None] == theirs.classes[rest])).any(1).sum())
    return again / count if count else 1.0


def compare_tensors(
    cpu: Detector, other: Detector, pictures: Sequence[np.ndarray], file: Path
) -> list[TensorDifference]:
    """Compare what two detectors' interpreters write for the same images, output by output.

    Raises:
        InferenceError: the outputs have other shapes: `file` is not the same model.
    """
    tensors = cpu.interpreter.outputs, other.interpreter.outputs
    shapes = [[tensor.shape for tensor in side] for side in tensors]
    if shapes[0] != shapes[1]:
        raise InferenceError(f"the delegate's outputs are {shapes[1]} and the CPU's {shapes[0]}: not the same model")
    stored: list[list[list[np.ndarray]]] = [[[] for _ in shapes[0]] for _ in tensors]
    for image in pictures:
        for side, detector in zip(stored, (cpu, other), strict=True):
            for place, array in zip(side, detector.interpreter.run(detector.fitted(image)), strict=True):
                place.append(np.array(array))
    titles = [output.title for output in contract.read(file).outputs]
    return [
        difference(title, *(side[number] for side in tensors), *(np.stack(side[number]) for side in stored))
        for number, title in enumerate(titles)
    ]


def difference(name: str, cpu: Tensor, other: Tensor, one: np.ndarray, two: np.ndarray) -> TensorDifference:
    """How an output differs.

    Args:
        name: of the output.
        cpu, other: its type on the one and on the other.
        one, two: what was stored for the images, by the CPU and by the other.
    """
    signal, values = cpu.values(one).astype(np.float64), other.values(two).astype(np.float64)
    noise = np.abs(signal - values)
    step = cpu.scale if cpu.dtype != np.float32 else float(np.ptp(signal)) / 255 or 1.0
    equal = float((noise == 0).mean())
    power = float((noise**2).sum())
    decibels = None if power == 0 else 10 * float(np.log10(max(float((signal**2).sum()), 1e-30) / power))
    return TensorDifference(name, equal, float(noise.max()) / step, float(noise.mean()) / step, decibels)


def _side(
    name: str,
    detector: Detector,
    pictures: Sequence[tuple[str, np.ndarray]],
    truth: list[Boxes] | None,
    runs: int,
) -> tuple[Side, list[Boxes]]:
    """What came of one, and its detections in each image."""
    run = detector.interpreter.bound(detector.fitted(pictures[0][1]).copy())
    (first,), taken = times(run, 1), times(run, runs)
    detector.conf = LOWER
    spans = [detector(image).milliseconds for _, image in pictures[:COMPARED]]
    between = [float(np.median([span[part] for span in spans])) for part in ("letterbox", "decoding")]
    boxes = [_boxes(detector(image)) for _, image in pictures]
    exact = None
    if truth is not None:
        detector.conf = LEAST_SCORE
        detector.count_all_classes()
        exact = accuracy([_boxes(detector(image)) for _, image in pictures], truth)
    speed = Speed(first, float(np.median(taken)), float(np.percentile(taken, 95)), runs, *between)
    return Side(name, speed, exact), boxes


def _boxes(detections: Detections) -> Boxes:
    places = detections.boxes if detections.rotated is None else detections.rotated
    return Boxes(places, detections.classes, detections.scores)


def _machine(delegate: str | None, threads: int) -> dict[str, Any]:
    """The board, its software, and how it was used."""
    versions = {}
    for package in ("ai-edge-litert", "tflite-runtime", "tensorflow", "openvino", "numpy", "opencv-python"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    cpu = _fields("/proc/cpuinfo")
    return {
        "board": _text("/proc/device-tree/model") or _text("/sys/class/dmi/id/product_name"),
        "os": _fields("/etc/os-release", "=").get("PRETTY_NAME", "").strip('"') or platform.system(),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "cpu": cpu.get("model name") or cpu.get("Hardware") or platform.processor(),
        "cpu_features": sorted((cpu.get("flags") or cpu.get("Features") or "").split()),
        "cores": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        "packages": versions,
        "delegate": delegate,
        "yolo_edgequant": __version__,
    }


def _facts(file: Path) -> dict[str, Any]:
    """What the file is."""
    facts = contract.read(file)
    content = file.read_bytes() if file.is_file() else b"".join(p.read_bytes() for p in sorted(file.glob("*.[xb]*")))
    return {
        "name": file.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "task": facts.task,
        "head": str(facts.head),
        "granularity": str(facts.granularity),
        "io": str(facts.io),
        "activation": facts.activation,
        "version": facts.version,
    }


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace").strip("\0 \n")
    except OSError:
        return ""


def _fields(path: str, separator: str = ":") -> dict[str, str]:
    """The last value of each key in a file of lines with keys and values."""
    rows = (line.partition(separator) for line in _text(path).splitlines())
    return {key.strip(): value.strip() for key, _, value in rows if value}


def table(row: Row) -> str:
    """The row for a reader, in Markdown."""
    machine = row.machine
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    lines = [
        f"{machine['board'] or machine['cpu'] or machine['architecture']}, {machine['os']}, kernel {machine['kernel']}",
        f"{packages}; Python {machine['python']}, {machine['threads']} threads",
        f"{row.file['name']}, {row.file['sha256'][:12]}…, {row.images} images",
        "",
        "| | mAP50-95 | mAP50 | first call ms | median ms | p95 ms | letterbox ms | decoding ms |",
        "|" + " --- |" * 8,
    ]
    for side in row.sides:
        exact = ["-", "-"] if side.accuracy is None else [f"{side.accuracy.map:.3f}", f"{side.accuracy.map50:.3f}"]
        speed = side.speed
        spans = (speed.first, speed.median, speed.p95, speed.letterbox, speed.decoding)
        lines.append(f"| {' | '.join([side.name, *exact, *(f'{value:.2f}' for value in spans)])} |")
    if row.tensors:
        lines += ["", "| output | equal | mean, steps | largest, steps | SNR dB |", "|" + " --- |" * 5]
        for one in row.tensors:
            noise = "no noise" if one.snr_db is None else f"{one.snr_db:.1f}"
            lines.append(f"| {one.name} | {one.equal:.1%} | {one.mean:.2f} | {one.largest:.0f} | {noise} |")
        lines += ["", f"objects found by both: {row.objects:.1%} or more of each one's"]
        lines += [f"DISAGREE: {problem}" for problem in row.problems] or ["CPU and delegate agree"]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the module's description says; an error of ours is one line and exit status 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--images", required=True, help="an image or a folder of them")
    parser.add_argument("--delegate", help="edgetpu, vx, or a library's path; the CPU alone without")
    parser.add_argument("--cpu-file", type=Path, help="what the CPU runs, if FILE was compiled for the delegate")
    parser.add_argument("--labels", type=Path, help="folder; where Ultralytics looks for it without")
    parser.add_argument("--limit", type=int, help="of images")
    parser.add_argument("--runs", type=int, default=RUNS, help="timed calls")
    parser.add_argument("--threads", type=int, help="of the CPU")
    parser.add_argument("--out", type=Path, default=Path("board.json"), help="the row to send back")
    parser.add_argument("--note", default="", help="anything about the board, for the row")
    options = parser.parse_args(arguments)
    try:
        row = measure(
            options.file,
            options.images,
            options.delegate,
            options.cpu_file,
            options.labels,
            options.limit,
            options.runs,
            options.threads,
            options.note,
            lambda line: print(f"… {line}", file=sys.stderr, flush=True),
        )
    except EdgeQuantError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    with atomic_write(options.out) as temporary:
        temporary.write_text(json.dumps(asdict(row), indent=1) + "\n")
    print(table(row))
    print(f"\nwritten: {options.out}")
    return int(bool(row.problems))


if __name__ == "__main__":
    sys.exit(main())
