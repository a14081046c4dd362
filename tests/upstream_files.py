"""What Ultralytics' own export tests would download, made here: models with random weights, drawn data sets.

Usage:
    YOLO_CONFIG_DIR=FOLDER python tests/upstream_files.py FOLDER
"""

import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from ultralytics import YOLO
from ultralytics.cfg import TASK2DATA, TASK2MODEL
from ultralytics.utils import SETTINGS, YAML
from ultralytics.utils.checks import check_yaml

from yolo_edgequant.demo.dataset import TASKS, data_set

SIZE, IMAGES = 64, 4


def prepare(folder: Path) -> None:
    """Write settings, models and data sets for the release that this process imports."""
    datasets, weights = folder / "datasets", folder / "weights"
    SETTINGS.update(datasets_dir=str(datasets), weights_dir=str(weights), runs_dir=str(folder / "runs"), sync=False)
    (weights / "path with spaces").mkdir(parents=True)
    torch.manual_seed(0)
    for name in TASK2MODEL.values():
        YOLO(Path(name).with_suffix(".yaml").name).save(weights / name)
    shutil.copy(weights / TASK2MODEL["detect"], weights / "path with spaces")
    for task, name in TASK2DATA.items():
        draw(datasets / (YAML.load(check_yaml(name))["path"] if name.endswith(".yaml") else name), task)


def draw(folder: Path, task: str) -> None:
    """Draw a few images in the layout of Ultralytics' small data sets, and the labels that must not be missing."""
    data_set(folder, IMAGES, IMAGES, SIZE, task=task if task in TASKS else "detect")
    if task == "pose":
        shutil.rmtree(folder / "labels")  # the shapes have other keypoints than people
    for image in (folder / "images").glob("*/*.png"):
        if task == "classify":
            (target := folder / image.parent.name / "shapes").mkdir(parents=True, exist_ok=True)
            image.rename(target / image.name)
        if task in {"semantic", "depth"}:
            target = folder / ("masks" if task == "semantic" else "depth") / image.parent.name
            target.mkdir(parents=True, exist_ok=True)
            if task == "semantic":
                cv2.imwrite(str(target / image.name), np.zeros((SIZE, SIZE), np.uint8))
            else:
                np.save(target / f"{image.stem}.npy", np.ones((SIZE, SIZE), np.float32))


if __name__ == "__main__":
    prepare(Path(sys.argv[1]).resolve())
