"""What the programs share: a job comes as JSON, what was found goes as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np


def run(open_file: Callable[[dict[str, Any]], Callable[[np.ndarray], dict[str, Any]]]) -> None:
    """Run a program on the images of the job that `sys.argv` names.

    Args:
        open_file: takes the job and gives a function from an image, (H, W, 3) uint8 BGR, to `boxes`, `scores`,
            `classes`, and perhaps `masks` (N, H, W) and `keypoints`, in pixels of the image.
    """
    job = json.loads(Path(sys.argv[1]).read_text())
    detect = open_file(job)
    rows = []
    for number, path in enumerate(job["images"]):
        row = detect(cv2.imread(path))
        masks = row.pop("masks", None)
        row = {key: np.asarray(value).tolist() for key, value in row.items()}
        if masks is not None and len(masks):
            row["masks"] = str(Path(job["out"]).with_suffix(f".{number}.npz"))
            np.savez_compressed(row["masks"], masks=np.asarray(masks, bool))
        rows.append(row)
    Path(job["out"]).write_text(json.dumps(rows))


class LiteRT:
    """A `.tflite` file in today's interpreter, with what it needs around it.

    Attributes:
        size: (height, width) of its input.
        outputs: the interpreter's details.
    """

    def __init__(self, path: str) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._model = Interpreter(model_path=path)
        self._model.allocate_tensors()
        (self._input,) = self._model.get_input_details()
        self.outputs = self._model.get_output_details()
        self.size = tuple(int(n) for n in self._input["shape"][1:3])

    def __call__(self, image: np.ndarray) -> list[np.ndarray]:
        """The outputs as stored, for an image of the input's size, BGR."""
        pixels = np.ascontiguousarray(image[..., ::-1])[None]
        kind = self._input["dtype"]
        if kind == np.int8:
            pixels = (pixels ^ np.uint8(128)).view(np.int8)
        elif kind == np.float32:
            pixels = pixels.astype(np.float32) / 255
        self._model.set_tensor(self._input["index"], pixels)
        self._model.invoke()
        return [self._model.get_tensor(output["index"]) for output in self.outputs]
