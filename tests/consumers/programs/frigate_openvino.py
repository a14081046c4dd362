"""Frigate's OpenVINO detector on an OpenVINO model."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import frigate
import numpy as np
import openvino
from program import run


def open_file(job):
    (file,) = Path(job["file"]).glob("*.xml")
    model = openvino.Core().compile_model(str(file), "CPU")

    def detect(image):
        pixels = np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1), np.float32)[None] / 255
        found = frigate.openvino(model(pixels)[0])
        keep = frigate.kept(found)
        return {"boxes": found.boxes[keep], "scores": found.scores[keep], "classes": found.classes[keep]}

    return detect


run(open_file)
