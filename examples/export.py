"""Export the embedded detector for an NXP or Coral device and use the file: python examples/export.py"""

import shutil
import tempfile
from pathlib import Path

from ultralytics import YOLO

import yolo_edgequant
from yolo_edgequant.demo.dataset import data_set
from yolo_edgequant.demo.train import SIZE, WEIGHTS

with tempfile.TemporaryDirectory() as folder:
    data = data_set(Path(folder) / "data", train=100, val=20, size=SIZE)
    checkpoint = shutil.copy(WEIGHTS, folder)

    integer = YOLO(checkpoint).export(format="tflite", quantize=8, data=data, split="train", imgsz=SIZE)
    with yolo_edgequant.options(head="float"):  # for code whose export call cannot be changed
        accurate = YOLO(checkpoint).export(format="tflite", quantize=8, data=data, split="train", imgsz=SIZE)

    for path in (checkpoint, integer, accurate):
        box = YOLO(path, task="detect").val(data=data, imgsz=SIZE, plots=False, verbose=False, workers=0).box
        print(f"{Path(path).name}: mAP50-95 {box.map:.3f}")
