"""The course of a training as a picture."""

import csv

import cv2
import pytest

from yolo_edgequant.training.curve import draw

NAMES = ("epoch", "time", "train/box_loss", "train/dis_loss", "metrics/mAP50(B)", "metrics/mAP50-95(B)")


@pytest.fixture
def picture(tmp_path):
    def run(final, teacher, names=NAMES):
        with (tmp_path / "results.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerows([names, (1, 3.5, 2.0, 1.0, 0.5, 0.3), (2, 7.0, 1.5, 0.8, 0.7, final)])
        assert draw(tmp_path / "results.csv", tmp_path / "curve.png", teacher, 0.2) == 2
        return cv2.imread(str(tmp_path / "curve.png"))

    return run


def test_losses_are_left_and_accuracies_right(picture):
    image = picture(0.6, 0.8)
    assert image.shape == (400, 1000, 3)
    left, right = slice(0, 500), slice(500, 1000)
    for other in (picture(0.5, 0.8), picture(0.6, 0.7)):
        assert (image[:, left] == other[:, left]).all()
        assert (image[:, right] != other[:, right]).any()


def test_names_with_blanks_are_read(picture):
    assert (picture(0.6, 0.8) == picture(0.6, 0.8, [f"  {name}" for name in NAMES])).all()
