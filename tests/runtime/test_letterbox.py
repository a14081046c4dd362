import cv2
import numpy as np
import pytest
from ultralytics.data.augment import LetterBox

from yolo_edgequant.runtime import letterbox
from yolo_edgequant.runtime.interpreter import Tensor

IMAGES = [(480, 640), (427, 640), (640, 480), (1000, 1500), (64, 96), (37, 91), (300, 5)]


def picture(size):
    noise = np.random.default_rng(sum(size)).integers(0, 256, (*size, 3), dtype=np.uint8)
    return cv2.blur(noise, (3, 3))


@pytest.mark.parametrize("opencv", [True, False])
@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("size", [(320, 320), (96, 160)])
def test_as_ultralytics(monkeypatch, opencv, image, size):
    if not opencv:
        monkeypatch.setattr(letterbox, "_opencv", lambda: None)
    expected = LetterBox(size)(image=picture(image))[..., ::-1]
    fit = letterbox.Letterbox(Tensor((1, *size, 3), np.dtype(np.uint8), 1 / 255, 0), True)
    made, placement = fit(picture(image))
    difference = np.abs(made[0].astype(int) - expected)
    assert difference.max() <= (0 if opencv else 1)
    assert (difference > 0).mean() < 0.01
    assert placement.image == image
    signed, _ = letterbox.Letterbox(Tensor((1, *size, 3), np.dtype(np.int8), 1 / 255, -128), True)(picture(image))
    assert (signed.astype(int) + 128 == made).all()
    floats, _ = letterbox.Letterbox(Tensor((1, 3, *size), np.dtype(np.float32)), False)(picture(image))
    assert (floats[0].transpose(1, 2, 0) == made[0].astype(np.float32) / np.float32(255)).all()


def test_the_grey_comes_back_when_an_image_of_another_shape_follows():
    fit = letterbox.Letterbox(Tensor((1, 64, 64, 3), np.dtype(np.uint8), 1 / 255, 0), True)
    fit(np.zeros((64, 64, 3), np.uint8))
    made, placement = fit(np.zeros((32, 64, 3), np.uint8))
    assert placement.corner == (16, 0)
    assert (made[0, :16] == 114).all()
    assert (made[0, 16:48] == 0).all()


def test_points_come_back_to_the_image():
    placement = letterbox.Placement((100, 200), (64, 64))
    assert placement.to_image(np.array([[0, 16], [64, 48]], np.float32)).tolist() == [[0, 0], [200, 100]]
    assert placement.clip(np.array([[-3.0, 120.0]])).tolist() == [[0, 100]]
