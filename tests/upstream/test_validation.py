from pathlib import Path

import numpy as np
import pytest
from ultralytics import YOLO

from yolo_edgequant.demo.dataset import data_set
from yolo_edgequant.demo.train import WEIGHTS
from yolo_edgequant.upstream.validation import accuracy, main_map, main_map50, main_metric, validate
from yolo_edgequant.verification.average_precision import mean_average_precision

BOXES = {"metrics/precision(B)": 0.9, "metrics/mAP50(B)": 0.8, "metrics/mAP50-95(B)": 0.5, "fitness": 0.5}
MASKS = BOXES | {"metrics/mAP50(M)": 0.7, "metrics/mAP50-95(M)": 0.4}


def test_the_tasks_own_output_counts():
    assert (main_map(BOXES), main_map50(BOXES)) == (0.5, 0.8)
    assert (main_map(MASKS), main_map50(MASKS)) == (0.4, 0.7)
    assert main_metric(MASKS) == "metrics/mAP50-95(M)"


def test_accuracy_is_what_val_says(shapes_data, capsys):
    expected = YOLO(WEIGHTS).val(data=str(shapes_data), imgsz=160, plots=False, verbose=False).box.map
    capsys.readouterr()
    assert accuracy(WEIGHTS, shapes_data, imgsz=160) == pytest.approx(expected)
    assert accuracy(YOLO(WEIGHTS), shapes_data, imgsz=160) == pytest.approx(expected)
    assert expected > 0.5
    assert not capsys.readouterr().out


def test_what_was_found_in_each_image_gives_the_same_map(shapes_data, capsys):
    result = validate(WEIGHTS, shapes_data, imgsz=160)
    capsys.readouterr()
    assert result.map == pytest.approx(accuracy(WEIGHTS, shapes_data, imgsz=160))
    images = result.images
    assert len(images.files) == len(set(images.files)) == 40
    assert mean_average_precision(images, np.ones((1, 40), int)) == pytest.approx([result.map], abs=1e-9)
    assert (images.hits.shape, images.boxes.shape) == ((len(images.scores), 10), (len(images.scores), 4))
    assert images.hits[:, 0].sum() > 0.8 * len(images.label_classes)
    assert -5 < images.boxes.min() < 20
    assert 140 < images.boxes.max() < 200  # some lie beyond the image


@pytest.mark.parametrize(
    ("name", "task", "coordinates"), [("seg", "segment", 4), ("pose", "pose", 4), ("obb", "obb", 5)]
)
def test_of_other_tasks_the_own_output_counts(name, task, coordinates, tmp_path):
    data = data_set(tmp_path, 1, 8, 160, seed=3, task=task)
    result = validate(Path(__file__).parents[1] / "weights" / f"shapes-{name}.pt", data, imgsz=160)
    assert mean_average_precision(result.images, np.ones((1, 8), int)) == pytest.approx([result.map], abs=1e-9)
    assert result.images.boxes.shape[1] == coordinates
    assert 0 < result.map < 1
