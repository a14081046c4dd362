"""yolov8-tflite-imx, its programs `detect`, `segment`, `pose` and `obb` without their camera.

They look for tflite-runtime, which needs NumPy 1 and rounds in its own way. Here its name stands for today's
interpreter: what is compared is how the outputs are read. And they cut pixels to whole numbers where they should round,
so that about every second pixel is off by one step; with `round` in the job, the pixels are rounded.

`segment` has the 80 classes of COCO and the prototypes of a 640 pixel input written into it: `fitted` runs its text
with the file's own numbers in their place, and changes no more than these. `pose` knows one class: each class of a file
is handed to it as an output of its own.
"""

import inspect
import math
import sys

import ai_edge_litert.interpreter
import numpy as np
from program import run

sys.modules["tflite_runtime"] = sys.modules["tflite_runtime.interpreter"] = ai_edge_litert.interpreter

from yolov8_tflite_imx import detect, obb, pose, segment, utils  # noqa: E402 - after the stand-in


def fitted(classes, side):
    """`segment.postprocess` for so many classes, and prototypes of so many rows and columns."""
    text = inspect.getsource(segment.postprocess)
    for number, other in (("84", 4 + classes), ("160", side)):
        if number not in text:
            raise RuntimeError(f"segment.postprocess has no {number} in it any more; adapt this program")
        text = text.replace(number, str(other))
    names = dict(vars(segment))
    exec(text, names)
    return names["postprocess"]


def open_file(job):
    conf, iou = job["conf"], job["iou"]
    if job["task"] == "segment":
        model, source, boxes, prototypes, size, scale, kind = segment.load_seg_model(job["file"])
        outputs = [boxes, prototypes]
        channels, (side, width, masks) = boxes["shape"][1], prototypes["shape"][1:]
        assert side == width, "its segment takes square inputs only"
        postprocess = fitted(channels - 4 - masks, side)
    else:
        model, source, outputs, size, scale, kind = utils.load_interpreter(job["file"])

    def invoke(image):
        tensor, pad = utils.preprocess(image, size, kind, *scale)
        if job["round"]:
            values = image[None, ..., ::-1].astype(np.float32) / 255 / scale[0] + scale[1]
            tensor = np.rint(values).clip(np.iinfo(kind).min, np.iinfo(kind).max).astype(kind)
        model.set_tensor(source["index"], tensor)
        model.invoke()
        return [model.get_tensor(output["index"]) for output in outputs], pad

    quantization = outputs[0]["quantization"]

    def detections(image):
        arrays, pad = invoke(image)
        boxes, scores, classes = detect.postprocess(arrays[0], pad, image.shape, *quantization, conf, iou, size)
        return {"boxes": boxes, "scores": scores, "classes": classes}

    def segments(image):
        arrays, pad = invoke(image)
        scales = (*quantization, *outputs[1]["quantization"])
        boxes, scores, classes, masks = postprocess(*arrays, pad, image.shape, *scales, conf, iou, size)
        return {"boxes": boxes, "scores": scores, "classes": classes, "masks": [np.asarray(m) > 0 for m in masks]}

    def poses(image):
        arrays, pad = invoke(image)
        row = {"boxes": [], "scores": [], "classes": [], "keypoints": []}
        for number in range(job["classes"]):
            channels = [*range(4), 4 + number, *range(4 + job["classes"], arrays[0].shape[1])]
            one = arrays[0][:, channels]
            boxes, scores, points = pose.postprocess(one, pad, *quantization, conf, iou, size)
            row["boxes"] += [[x, y, x + w, y + h] for x, y, w, h in boxes]
            row["scores"] += scores
            row["classes"] += [number] * len(scores)
            row["keypoints"] += [[point[:2] for point in person] for person in points]
        return row

    def rotated(image):
        arrays, pad = invoke(image)
        boxes, scores, classes = obb.postprocess(arrays[0], pad, image.shape, *quantization, conf, iou, size)
        rows = [[*center, *extent, math.radians(angle)] for center, extent, angle in boxes]
        return {"boxes": rows, "scores": scores, "classes": classes}

    return {"detect": detections, "segment": segments, "pose": poses, "obb": rotated}[job["task"]]


run(open_file)
