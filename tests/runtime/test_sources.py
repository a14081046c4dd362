import cv2
import numpy as np
import pytest

from yolo_edgequant.errors import InferenceError
from yolo_edgequant.runtime.sources import count, images, is_video


@pytest.fixture
def clip(tmp_path):
    file = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), 5, (64, 48))
    for grey in (10, 120, 240):
        writer.write(np.full((48, 64, 3), grey, np.uint8))
    writer.release()
    return str(file)


def test_a_video_frame_by_frame(clip):
    frames = list(images(clip))
    assert [name for name, _ in frames] == ["000000", "000001", "000002"]
    assert [round(frame.mean() / 10) for _, frame in frames] == [1, 12, 24]
    assert is_video(clip)
    assert count(clip) is None


def test_the_images_of_a_folder_in_order(tmp_path):
    for name, grey in (("b.png", 30), ("a.BMP", 60)):
        cv2.imwrite(str(tmp_path / name), np.full((8, 10, 3), grey, np.uint8))
    (tmp_path / "notes.txt").write_text("no image")
    assert [(name, int(image.mean())) for name, image in images(str(tmp_path))] == [("a.BMP", 60), ("b.png", 30)]
    assert count(str(tmp_path)) == 2
    assert [name for name, _ in images(str(tmp_path / "b.png"))] == ["b.png"]
    assert not is_video(str(tmp_path / "b.png"))
    assert is_video("0"), "a camera"


@pytest.mark.parametrize("source", ["missing.png", "."])
def test_a_source_without_images(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InferenceError, match="no image at"):
        list(images(source))


def test_what_cannot_be_read_is_named(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    with pytest.raises(InferenceError, match=r"broken\.png' is not an image"):
        list(images(str(tmp_path)))
    (tmp_path / "broken.mp4").write_bytes(b"not a film")
    with pytest.raises(InferenceError, match=r"no picture came from '.*broken\.mp4'"):
        list(images(str(tmp_path / "broken.mp4")))
