"""OpenVINO Model API, by its class for YOLOv8; the metadata's `YOLO`, which is upstream's, means older models to it."""

from pathlib import Path

from model_api.models import Model
from program import run


def open_file(job):
    (file,) = Path(job["file"]).glob("*.xml")
    settings = {"confidence_threshold": job["conf"], "iou_threshold": job["iou"]}
    model = Model.create_model(str(file), model_type="YOLOv8", configuration=settings)

    def detect(image):
        found = model(image)
        return {"boxes": found.bboxes, "scores": found.scores, "classes": found.labels}

    return detect


run(open_file)
