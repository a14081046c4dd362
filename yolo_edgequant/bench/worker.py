"""One step of a bench in a process of its own: ``python -m yolo_edgequant.bench.worker STEP JSON``.

The process makes time and memory comparable (nothing is imported or cached from the step before) and lets a stock
export run without any patch. The result is written as JSON to the file named last.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..patches import REGISTRY
from ..runtime import Detector
from ..runtime.interpreter import open_file, times

_ROUNDS = 15
_RUNS = 8


def task(model: str) -> dict[str, Any]:
    """Load a checkpoint and say its ``task``, so that one that cannot be loaded ends no other process."""
    from ..upstream.models import YOLO

    return {"task": YOLO(model).task}


def export(model: str, stock: bool, **arguments: Any) -> dict[str, Any]:
    """Export and time it.

    Args:
        model: checkpoint; the file is written beside it.
        stock: without our patches.
        arguments: of ``model.export``.

    Returns:
        ``path`` of the file to validate, of a SavedModel's folder the integer ``.tflite``; ``seconds`` of the export
        call; ``bytes`` of that file.
    """
    if stock:
        REGISTRY.disable()
        # upstream's saved_model export fetches this sample unless it is there; the bench works offline
        sample = Path("calibration_image_sample_data_20x128x128x3_float32.npy")
        np.save(sample, np.random.default_rng(0).random((20, 128, 128, 3), np.float32))
    from ..upstream.models import YOLO

    start = time.perf_counter()
    file = Path(YOLO(model).export(**arguments))
    seconds = time.perf_counter() - start
    if arguments["format"] == "saved_model":
        kind = "integer_quant" if arguments.get("head") == "float" else "full_integer_quant"
        file = file / f"{Path(model).stem}_{kind}.tflite"
    size = sum(f.stat().st_size for f in file.rglob("*")) if file.is_dir() else file.stat().st_size
    return {"path": str(file), "seconds": seconds, "bytes": size}


def validate(path: str, stock: bool, images: str, **arguments: Any) -> dict[str, Any]:
    """Validate a file.

    Args:
        path: checkpoint or exported file.
        stock: without our patches.
        images: file for what was found in each image, if the task has boxes.
        arguments: of ``model.val``.

    Returns:
        ``map`` (mAP50-95) and ``map50`` of the task's own output, 0 to 1; ``images`` if that file was written.
    """
    if stock:
        REGISTRY.disable()
    from ..upstream import validation

    result = validation.validate(path, batch=1, rect=False, workers=1, **arguments)
    figures = {"map": result.map, "map50": result.map50}
    if result.images is None:
        return figures
    result.images.save(Path(images))
    return {**figures, "images": images}


def latency(paths: list[str], threads: int) -> dict[str, Any]:
    """Median time of the interpreter alone, for several files in turns, so that a noisy machine troubles all alike.

    Each turn loads its file anew.

    Args:
        paths: ``.tflite`` files and OpenVINO folders.
        threads: of each interpreter.

    Returns:
        ``milliseconds``, one for each path.
    """
    taken: list[list[float]] = [[] for _ in paths]
    for _ in range(_ROUNDS):
        for of_file, path in zip(taken, paths, strict=True):
            run = _runner(Path(path), threads)  # anew: where its memory lies is worth several percent
            run()
            of_file += times(run, _RUNS)
    return {"milliseconds": [float(np.median(of_file)) for of_file in taken]}


def images(
    paths: list[str], stock: list[bool], data: str, split: str, imgsz: list[int], threads: int, count: int
) -> dict[str, Any]:
    """Median time from an image in memory to its boxes, all files in turns on each image.

    Our files go through :class:`yolo_edgequant.runtime.Detector`, stock ones through ``YOLO.predict``, both with their
    confidence of 0.25. The process keeps to `threads` cores, and all that counts cores is told so.

    Args:
        paths: exported files.
        stock: which of them are upstream's own.
        data, split: where the images are.
        imgsz: (height, width).
        threads: cores, and threads of every library.
        count: of images.

    Returns:
        For each path ``milliseconds``, and ``decoding`` of it, None for stock files.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    import cv2
    import torch

    REGISTRY.disable()
    from ..upstream import data as data_sets
    from ..upstream.compat import set_litert_threads
    from ..upstream.models import YOLO

    cv2.setNumThreads(threads)
    torch.set_num_threads(threads)
    set_litert_threads(threads)

    def runner(path: str, upstream: bool) -> Callable[[np.ndarray], Any]:
        if not upstream:
            return Detector(path, threads=threads)
        model = YOLO(path, task="detect")
        return lambda image: model.predict(image, imgsz=imgsz, conf=0.25, verbose=False)

    pictures = [cv2.imread(str(file)) for file in data_sets.image_files(data, split)[:count]]
    runners = [runner(path, upstream) for path, upstream in zip(paths, stock, strict=True)]
    spans: list[list[float]] = [[] for _ in paths]
    decoding: list[list[float]] = [[] for _ in paths]
    for run in runners:
        run(pictures[0])
    for picture in pictures:
        for run, taken, decoded in zip(runners, spans, decoding, strict=True):
            start = time.perf_counter()
            detections = run(picture)
            taken.append(1000 * (time.perf_counter() - start))
            if isinstance(run, Detector):
                decoded.append(detections.milliseconds["decoding"])
    return {
        "milliseconds": [float(np.median(taken)) for taken in spans],
        "decoding": [float(np.median(decoded)) if decoded else None for decoded in decoding],
    }


def _runner(path: Path, threads: int) -> Callable[[], Any]:
    """A function that runs the file once on noise that is already in place."""
    interpreter = open_file(path, threads)
    noise = np.random.default_rng(0).random(interpreter.input.shape, np.float32)
    return interpreter.bound(interpreter.input.stored(noise))


if __name__ == "__main__":
    step, values, result = sys.argv[1:]
    Path(result).write_text(
        json.dumps(
            {"task": task, "export": export, "validate": validate, "latency": latency, "images": images}[step](
                **json.loads(values)
            )
        )
    )
