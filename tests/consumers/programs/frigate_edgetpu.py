"""Frigate's Edge TPU detector on a `.tflite` file."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import frigate
from program import LiteRT, run


def open_file(job):
    model = LiteRT(job["file"])
    boxes, logits = frigate.roles([tuple(output["shape"]) for output in model.outputs])

    def detect(image):
        arrays = model(image)
        stored = [
            frigate.Stored(array, *output["quantization"]) for array, output in zip(arrays, model.outputs, strict=True)
        ]
        found = frigate.edgetpu(stored[boxes], stored[logits], model.size)
        keep = frigate.kept(found)
        return {"boxes": found.boxes[keep], "scores": found.scores[keep], "classes": found.classes[keep]}

    return detect


run(open_file)
