"""supervision, with Ultralytics and our import."""

import supervision
from program import run
from ultralytics import YOLO

import yolo_edgequant  # noqa: F401


def open_file(job):
    model = YOLO(job["file"], task=job["task"])

    def detect(image):
        result = model.predict(image, conf=job["conf"], iou=job["iou"], imgsz=job["imgsz"], verbose=False)[0]
        found = supervision.Detections.from_ultralytics(result)
        return {"boxes": found.xyxy, "scores": found.confidence, "classes": found.class_id}

    return detect


run(open_file)
