import json

import cv2
import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from yolo_edgequant.cli import app
from yolo_edgequant.errors import InferenceError
from yolo_edgequant.runtime.annotate import annotate
from yolo_edgequant.runtime.detections import Detections
from yolo_edgequant.runtime.sources import images
from yolo_edgequant.runtime.stream import stream


def detections(**more):
    fields = {
        "boxes": np.array([[10, 20, 50, 60]], np.float32),
        "scores": np.array([0.9], np.float32),
        "classes": np.array([1]),
        "names": {0: "cat", 1: "dog"},
        "rotated": None,
        "keypoints": None,
        "masks": None,
        "milliseconds": {"letterbox": 0.1, "inference": 2.0, "decoding": 0.3},
    }
    return Detections(**fields | more)


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "pictures"
    place.mkdir()
    for name in ("b.png", "a.jpg"):
        cv2.imwrite(str(place / name), np.full((80, 100, 3), 30, np.uint8))
    (place / "notes.txt").write_text("no image")
    return place


def test_a_folder_is_run_in_order_and_saved(folder, tmp_path):
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


def test_a_video_frame_by_frame(tmp_path):
    file = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), 5, (64, 48))
    for grey in (10, 120, 240):
        writer.write(np.full((48, 64, 3), grey, np.uint8))
    writer.release()
    frames = list(images(str(file)))
    assert [name for name, _ in frames] == ["000000", "000001", "000002"]
    assert [round(frame.mean() / 10) for _, frame in frames] == [1, 12, 24]


@pytest.mark.parametrize("source", ["missing.png", "."])
def test_a_source_without_images(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InferenceError, match="no image at"):
        list(images(source))


def test_a_broken_image(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    with pytest.raises(InferenceError, match=r"broken\.png' is not an image"):
        list(images(str(tmp_path)))


def test_what_is_drawn():
    image = np.zeros((100, 120, 3), np.uint8)
    plain = annotate(image, detections())
    assert not image.any()
    assert plain[60, 30].any()
    assert not plain[40, 30].any()
    mask = np.zeros((1, 100, 120), bool)
    mask[0, 30:50, 20:40] = True
    assert annotate(image, detections(masks=mask))[40, 30].any()
    points = np.array([[[30, 40, 0.9], [100, 90, 0.1]]], np.float32)
    drawn = annotate(image, detections(keypoints=points))
    assert drawn[40, 30].any()
    assert not drawn[90, 100].any()
    turned = annotate(image, detections(rotated=np.array([[30, 40, 40, 40, np.pi / 4]], np.float32)))
    assert turned[40, 58].any()
    assert not turned[60, 12].any()


def test_the_command_names_what_is_missing():
    result = CliRunner().invoke(app, ["run", "missing.tflite", "."])
    assert "model 'missing.tflite' not found" in str(result.exception)
