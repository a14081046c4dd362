"""From an image to the objects in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import numpy as np

from ..contract import BOX_TASKS
from ..errors import ContractError, InferenceError, UnsupportedModelError
from ..processes import usable_threads
from .detections import Detections, rectangle
from .interpreter import Interpreter, load
from .letterbox import Letterbox
from .masks import masks
from .outputs import reader


class Detector:
    """Finds objects with a file that an export with ``import yolo_edgequant`` made.

    An object keeps its buffers between calls; use one per thread.

    Args:
        path: ``.tflite`` file or OpenVINO model's folder, for detect, segment, pose or obb.
        conf: a detection's score is over this, 0 to 1.
        iou: largest overlap of two detections of a class, 0 to 1; NMS-free files have no use for it.
        max_det: number of detections in an image at most.
        classes: indices of the classes to look for; None for all.
        agnostic_nms: detections of different classes suppress each other, too.
        threads: of the CPU; None for all cores that there are.
        delegate: ``edgetpu``, ``vx``, or the path of a TFLite delegate's library. Files for the Edge TPU get theirs.

    Attributes:
        task: detect, segment, pose or obb.
        names: of the classes, by index.

    Raises:
        InferenceError: there is no such file, or a setting is out of its range.
        ContractError: the file is not from an export of ours, or damaged.
        UnsupportedModelError: the file is of another task.
        MissingToolError: what runs such a file is not installed.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        conf: float = 0.25,
        iou: float = 0.7,
        max_det: int = 300,
        classes: Sequence[int] | None = None,
        agnostic_nms: bool = False,
        threads: int | None = None,
        delegate: str | None = None,
    ) -> None:
        for name, value in (("conf", conf), ("iou", iou)):
            if not 0 <= value <= 1:
                raise InferenceError(f"{name}={value!r} is not between 0 and 1")
        for name, number in (("max_det", max_det), ("threads", threads)):
            if number is not None and number < 1:
                raise InferenceError(f"{name}={number!r} is not 1 or more")
        path = Path(path)
        if delegate is None and path.name.endswith("_edgetpu.tflite"):
            delegate = "edgetpu"
        self._interpreter, contract = load(path, threads or usable_threads(), delegate)
        self.task = contract.task
        if self.task not in BOX_TASKS:
            raise UnsupportedModelError(f"'{path}' is a {self.task} model; the runtime takes {', '.join(BOX_TASKS)}")
        shape = self._interpreter.input.shape
        if len(shape) != 4 or shape[3 if contract.channels_last else 1] != 3:
            raise ContractError(f"'{path}' takes {shape}, which is no image of three channels as its metadata has it")
        if shape[0] != 1:
            raise UnsupportedModelError(f"'{path}' takes {shape[0]} images at once, not 1")
        self.names: dict[int, str] = dict(contract.names)
        unknown = sorted(set(classes or ()) - self.names.keys())
        if unknown:
            raise InferenceError(f"classes={unknown!r} are not among the model's, 0 to {len(self.names) - 1}")
        self.conf, self.iou, self.max_det, self.agnostic_nms = conf, iou, max_det, agnostic_nms
        self.classes = None if classes is None else np.asarray(classes, np.int64)
        self._letterbox = Letterbox(self._interpreter.input, contract.channels_last)
        try:
            self._reader = reader(contract, self._interpreter.outputs, self._letterbox.size)
        except ContractError as error:
            raise ContractError(f"'{path}' cannot be read: {error}") from error

    @property
    def interpreter(self) -> Interpreter:
        """What runs the file."""
        return self._interpreter

    def count_all_classes(self) -> None:
        """From now on a cell may stand for several classes, as in Ultralytics' validation and not in its prediction."""
        self._reader.multi_label = True

    def fitted(self, image: np.ndarray) -> np.ndarray:
        """An image, (H, W, 3) uint8 BGR, as the file takes it; valid until the next one."""
        return self._letterbox(image)[0]

    def __call__(self, image: np.ndarray) -> Detections:
        """Find the objects in an image.

        Args:
            image: (H, W, 3) uint8, BGR as OpenCV reads it.

        Raises:
            InferenceError: the image has another shape or type, or no pixels.
        """
        if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            given = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise InferenceError(f"an image is a uint8 array of shape (height, width, 3) in BGR, not {given}")
        if not image.size:
            raise InferenceError(f"the image is empty: its shape is {image.shape}")
        started = perf_counter()
        fitted, placement = self._letterbox(image)
        ready = perf_counter()
        outputs = self._interpreter.run(fitted)
        done = perf_counter()
        found = self._reader.detections(outputs, self.conf, self.iou, self.max_det, self.agnostic_nms, self.classes)
        rotated = keypoints = instances = None
        if self.task == "obb":
            rotated = np.concatenate(
                (placement.to_image(found.boxes[:, :2]), found.boxes[:, 2:4] / placement.gain, found.boxes[:, 4:]), 1
            )
            corners = rectangle(rotated)
            boxes = np.concatenate((corners.min(1), corners.max(1)), 1)
        else:
            boxes = placement.clip(placement.to_image(found.boxes.reshape(-1, 2, 2))).reshape(-1, 4)
        if self.task == "pose":
            points = placement.clip(placement.to_image(found.extra[..., :2]))
            keypoints = np.concatenate((points, found.extra[..., 2:]), 2)
        if self.task == "segment":
            instances = masks(found.extra, self._reader.prototypes(outputs), boxes, placement)
            visible = instances.any((1, 2))  # as Ultralytics does, drop what has no pixel
            found, boxes, instances = found[visible], boxes[visible], instances[visible]
        ended = perf_counter()
        spans = {"letterbox": ready - started, "inference": done - ready, "decoding": ended - done}
        return Detections(
            boxes,
            found.scores,
            found.classes,
            self.names,
            rotated,
            keypoints,
            instances,
            {name: seconds * 1e3 for name, seconds in spans.items()},
        )
