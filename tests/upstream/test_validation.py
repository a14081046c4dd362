import pytest
from ultralytics import YOLO

from yolo_edgequant.demo.train import WEIGHTS
from yolo_edgequant.upstream.validation import accuracy, main_map, main_map50, main_metric

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
