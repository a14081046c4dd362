"""sahi's detection model for Ultralytics, with our import; without slices, since these are another set of images."""

import numpy as np
from program import run
from sahi import AutoDetectionModel
from sahi.predict import get_prediction

import yolo_edgequant  # noqa: F401


def open_file(job):
    model = AutoDetectionModel.from_pretrained(
        model_type="ultralytics",
        model_path=job["file"],
        confidence_threshold=job["conf"],
        image_size=job["imgsz"],
        device="cpu",
    )

    def detect(image):
        found = get_prediction(np.ascontiguousarray(image[..., ::-1]), model, verbose=0).object_prediction_list
        return {
            "boxes": [item.bbox.to_xyxy() for item in found],
            "scores": [item.score.value for item in found],
            "classes": [item.category.id for item in found],
        }

    return detect


run(open_file)
