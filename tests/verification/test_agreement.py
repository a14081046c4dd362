import numpy as np
import pytest

from yolo_edgequant.runtime.interpreter import Tensor
from yolo_edgequant.verification.agreement import Agreement, Run, compare

METADATA = {
    "task": "detect",
    "names": {0: "a", 1: "b"},
    "end2end": False,
    "args": {},
    "edgequant": {
        "schema": 1,
        "head": "float",
        "boxes": "pixels",
        "layout": "NHWC",
        "outputs": [{"name": "detections"}],
    },
}


def run(*rows):
    """One image with boxes (centre x, centre y, width, height, score of a, score of b)."""
    made = np.zeros((1, 6, 50), np.float32)
    for index, row in enumerate(rows):
        made[0, :, index] = row
    return Run([Tensor((1, 6, 50), np.dtype(np.float32))], [[made]])


THREE = (250, 250, 30, 30, 0.8, 0)
ONE, TWO = (50, 50, 40, 40, 0.9, 0), (150, 150, 40, 60, 0, 0.6)


def seen(reference, made):
    return compare(METADATA, (320, 320), reference, made)


def test_the_same_outputs_agree():
    found = seen(run(ONE, TWO), run(ONE, TWO))
    assert found.detections == pytest.approx(1)
    assert (found.objects, found.images) == (2, 1)
    assert found.snr_db["detections"] > 100
    assert not found.collapsed


def test_scores_that_are_gone_are_a_collapse():
    found = seen(run(ONE, TWO, THREE), run())
    assert (found.detections, found.sure) == (0, 3)
    assert found.collapsed
    assert not seen(run(ONE, TWO), run()).collapsed, "too few to say so"


def test_lower_scores_other_classes_moved_boxes_and_false_objects_cost():
    whole = run(ONE, TWO)
    lower = seen(whole, run((*ONE[:4], 0.8, 0), TWO)).detections
    assert lower == pytest.approx(2 * (0.8 + 0.6) / (1.5 + 1.4))
    assert seen(whole, run((*ONE[:4], 0, 0.9), TWO)).detections == pytest.approx(2 * 0.6 / 3)
    moved = seen(whole, run((60, *ONE[1:]), TWO)).detections
    assert moved == pytest.approx(2 * (0.9 * 30 / 50 + 0.6) / 3)
    assert seen(whole, run(ONE, TWO, (250, 250, 20, 20, 0.5, 0))).detections == pytest.approx(3 / 3.5)


def test_an_object_is_in_one_pair_only():
    twins = run(ONE, (50, 50, 41, 41, 0.9, 0))  # NMS leaves one
    near = run(ONE, (70, 50, 40, 40, 0.9, 0))
    assert seen(run(ONE), twins).detections > 0.9
    assert seen(run(ONE), near).detections == pytest.approx(2 * 0.9 / 2.7)


def test_without_objects_the_noise_decides():
    assert seen(run(), run()).detections is None
    noise = Agreement(4, None, None, {"output 0": -3.0})
    assert not noise.collapsed
    assert noise.quality == -3.0
