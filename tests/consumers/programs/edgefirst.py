"""EdgeFirst's HAL, its decoder told of the outputs by the schema in its repository (testdata/per_scale).

It takes raw outputs as (1, h, w, C); those of `levels`, (1, cells, C), are given that shape here.
"""

import math

import edgefirst_hal as hal
import numpy as np
from program import LiteRT, run


def shape_of(output, size):
    """(1, h, w, C) of an output, which is that already or (1, h * w, C)."""
    shape = [int(n) for n in output["shape"]]
    if len(shape) == 4:
        return shape
    stride = math.isqrt(size[0] * size[1] // shape[1])
    return [1, size[0] // stride, size[1] // stride, shape[2]]


def schema(outputs, size):
    """The schema of outputs (1, h, w, C), boxes with the logits of 16 bins a side."""
    levels = {"boxes": [], "scores": []}
    for output in sorted(outputs, key=lambda output: -shape_of(output, size)[1]):
        shape = shape_of(output, size)
        role = "boxes" if shape[3] == 64 else "scores"
        scale, zero_point = output["quantization"]
        level = {
            "name": f"{role}_{len(levels[role])}",
            "type": role,
            "stride": size[0] // shape[1],
            "scale_index": len(levels[role]),
            "shape": shape,
            "dshape": [
                {"batch": 1},
                {"height": shape[1]},
                {"width": shape[2]},
                {"num_features" if role == "boxes" else "num_classes": shape[3]},
            ],
            "dtype": "int8",
            "quantization": {"scale": float(scale), "zero_point": int(zero_point), "dtype": "int8"},
        }
        levels[role].append(level | ({"activation_required": "sigmoid"} if role == "scores" else {}))
    cells = sum(math.prod(level["shape"][1:3]) for level in levels["boxes"])
    classes = levels["scores"][0]["shape"][3]
    return {
        "schema_version": 2,
        "decoder_version": "yolov8",
        "nms": "class_aware",
        "input": {
            "shape": [1, *size, 3],
            "dshape": [{"batch": 1}, {"height": size[0]}, {"width": size[1]}, {"num_features": 3}],
            "cameraadaptor": "rgb",
        },
        "outputs": [
            {
                "name": "boxes",
                "type": "boxes",
                "shape": [1, 4, cells],
                "dshape": [{"batch": 1}, {"box_coords": 4}, {"num_boxes": cells}],
                "encoding": "dfl",
                "decoder": "ultralytics",
                "normalized": True,
                "outputs": levels["boxes"],
            },
            {
                "name": "scores",
                "type": "scores",
                "shape": [1, classes, cells],
                "dshape": [{"batch": 1}, {"num_classes": classes}, {"num_boxes": cells}],
                "decoder": "ultralytics",
                "score_format": "per_class",
                "outputs": levels["scores"],
            },
        ],
    }


def open_file(job):
    model = LiteRT(job["file"])
    thresholds = {"score_threshold": job["conf"], "iou_threshold": job["iou"], "nms": hal.Nms.ClassAware}
    if len(model.outputs) == 1:
        (output,) = model.outputs
        told = hal.Output.detection(shape=[int(n) for n in output["shape"]])
        scale, zero_point = output["quantization"]
        told = told.with_quantization(scale=float(scale), zero_point=int(zero_point)) if scale else told
        decoder = hal.Decoder.new_from_outputs([told], **thresholds, decoder_version=hal.DecoderVersion.Yolov8)
    else:
        decoder = hal.Decoder(schema(model.outputs, model.size), **thresholds)
    factors = np.array([model.size[1], model.size[0]] * 2, np.float32)

    def detect(image):
        tensors = []
        for array, output in zip(model(image), model.outputs, strict=True):
            if len(model.outputs) > 1:
                array = array.reshape(shape_of(output, model.size))
            tensor = hal.Tensor(list(array.shape), array.dtype.name, hal.TensorMemory.MEM)
            tensor.from_numpy(np.ascontiguousarray(array))
            scale, zero_point = output["quantization"]
            if scale:
                tensor.set_quantization_per_tensor(float(scale), int(zero_point))
            tensors.append(tensor)
        boxes, scores, classes, _ = (*decoder.decode(tensors, 300), None)[:4]
        boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
        return {"boxes": boxes * factors, "scores": scores, "classes": classes}

    return detect


run(open_file)
