"""Finds objects with a file of anybody: by its contract, or as Ultralytics' own files are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import contract
from ..contract import Contract, Output
from ..errors import ContractError, UnsupportedModelError
from ..processes import usable_threads
from ..runtime.detections import Detections
from ..runtime.detector import Detector
from ..runtime.interpreter import open_file
from ..runtime.letterbox import Letterbox
from ..runtime.outputs import reader

CONF, IOU, MAX_DET = 0.25, 0.7, 300

Finder = Callable[[np.ndarray], Detections]


def finder(path: Path) -> Finder:
    """What finds objects in an image, (H, W, 3) uint8 BGR.

    Args:
        path: ``.tflite`` file, or an OpenVINO model's folder.

    Raises:
        UnsupportedModelError: nobody knows how to decode its outputs, or the interpreter cannot read the file.
        MissingToolError: what runs such a file is not installed.
    """
    try:
        contract.read(path)
    except ContractError:
        return _upstream(path)
    return Detector(path, conf=CONF, iou=IOU, max_det=MAX_DET)


def _upstream(path: Path) -> Finder:
    """A file of Ultralytics itself: one output of (1, 4 + classes, cells), of boxes in pixels or in shares."""
    interpreter = open_file(path, usable_threads())
    shape, outputs = interpreter.input.shape, interpreter.outputs
    if len(shape) != 4 or shape[0] != 1 or 3 not in (shape[1], shape[3]):
        raise UnsupportedModelError(f"'{path}' takes {shape}, which is no image of three channels")
    if len(outputs) != 1 or len(outputs[0].shape) != 3 or not 4 < outputs[0].shape[1] < outputs[0].shape[2]:
        shapes = ", ".join(str(output.shape) for output in outputs)
        raise UnsupportedModelError(f"'{path}' gives {shapes}: only (1, 4 + classes, cells) is read without a contract")
    channels_last = shape[3] == 3
    letterbox = Letterbox(interpreter.input, channels_last)
    names = _names(contract.metadata_of(path), outputs[0].shape[1] - 4)

    def find(image: np.ndarray) -> Detections:
        fitted, placement = letterbox(image)
        stored = interpreter.run(fitted)
        corners = outputs[0].values(np.asarray(stored[0]))[0, :4]
        facts = _contract(names, channels_last, normalised=bool(np.nanmax(np.abs(corners), initial=0.0) <= 4))
        objects = reader(facts, outputs, letterbox.size).detections(stored, CONF, IOU, MAX_DET, False)
        boxes = placement.clip(placement.to_image(objects.boxes.reshape(-1, 2, 2))).reshape(-1, 4)
        return Detections(boxes, objects.scores, objects.classes, names, None, None, None, {})

    return find


def _contract(names: Mapping[int, str], channels_last: bool, normalised: bool) -> Contract:
    """What such a file would say of itself."""
    return Contract(
        task="detect",
        names=names,
        stride=32,
        end2end=False,
        nms=False,
        kpt_shape=None,
        head="int8",
        granularity="none",
        ranges="none",
        corrections="none",
        io="float",
        channels_last=channels_last,
        outputs=(Output("detections"),),
        normalised=normalised,
    )


def _names(metadata: Mapping[str, Any], count: int) -> dict[int, str]:
    """Names of the classes from Ultralytics' metadata, or their numbers."""
    given = metadata.get("names")
    named = given if isinstance(given, dict) else {}
    return {index: " ".join(str(named.get(str(index), index)).split())[:40] for index in range(count)}
