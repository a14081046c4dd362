import json

import cv2
import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from yolo_edgequant.cli import app
from yolo_edgequant.runtime.stream import stream


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "pictures"
    place.mkdir()
    for name in ("b.png", "a.jpg"):
        cv2.imwrite(str(place / name), np.full((80, 100, 3), 30, np.uint8))
    (place / "notes.txt").write_text("no image")
    return place


def test_a_folder_is_run_in_order_and_saved(folder, tmp_path, detections):
    save = tmp_path / "out"
    console = Console(width=120, record=True)
    console.print(stream(lambda image: detections(), str(folder), save, False, console))
    rows = json.loads((save / "detections.json").read_text())
    assert [row["image"] for row in rows] == ["a.jpg", "b.png"]
    assert rows[0]["objects"] == [{"name": "dog", "class": 1, "score": 0.9, "box": [10, 20, 50, 60]}]
    assert (cv2.imread(str(save / "b.png")) != 30).any()
    text = console.export_text()
    assert "1 dog" in text
    assert "median of 2" in text


def test_of_many_images_the_first_are_shown(folder, tmp_path, detections):
    for number in range(30):
        cv2.imwrite(str(folder / f"c{number:02d}.png"), np.zeros((4, 4, 3), np.uint8))
    console = Console(width=120, record=True)
    console.print(stream(lambda image: detections(), str(folder), None, False, console))
    text = console.export_text()
    assert "c17.png" in text
    assert "c18.png" not in text
    assert "12 more" in text
    assert "median of 32" in text
    assert "32 in all" in text


def test_the_command_names_what_is_missing():
    result = CliRunner().invoke(app, ["run", "missing.tflite", "."])
    assert "model 'missing.tflite' not found" in str(result.exception)
