import numpy as np
import pytest

from yolo_edgequant.contract import Contract, Output
from yolo_edgequant.runtime.interpreter import Run, Tensor
from yolo_edgequant.verification.agreement import Agreement, compare

CONTRACT = Contract(
    task="detect",
    names={0: "a", 1: "b"},
    stride=32,
    end2end=False,
    nms=False,
    kpt_shape=None,
    head="float",
    granularity="channel",
    ranges="activation",
    corrections="all",
    io="float",
    channels_last=True,
    outputs=(Output("detections"),),
)


def run(*rows):
    """One image with boxes (centre x, centre y, width, height, score of a, score of b)."""
    output = np.zeros((1, 6, 50), np.float32)
    for index, row in enumerate(rows):
        output[0, :, index] = row
    return Run([Tensor((1, 6, 50), np.dtype(np.float32))], [[output]])


THREE = (250, 250, 30, 30, 0.8, 0)
ONE, TWO = (50, 50, 40, 40, 0.9, 0), (150, 150, 40, 60, 0, 0.6)


def compared(reference, quantized):
    return compare(CONTRACT, (320, 320), reference, quantized)


def test_the_same_outputs_agree():
    agreement = compared(run(ONE, TWO), run(ONE, TWO))
    assert agreement.detections == pytest.approx(1)
    assert (agreement.objects, agreement.images) == (2, 1)
    assert agreement.snr_db["detections"] > 100
    assert not agreement.collapsed


def test_scores_that_are_gone_are_a_collapse():
    agreement = compared(run(ONE, TWO, THREE), run())
    assert (agreement.detections, agreement.sure) == (0, 3)
    assert agreement.collapsed
    assert not compared(run(ONE, TWO), run()).collapsed, "too few to say so"


def test_lower_scores_other_classes_moved_boxes_and_false_objects_cost():
    whole = run(ONE, TWO)
    lower = compared(whole, run((*ONE[:4], 0.8, 0), TWO)).detections
    assert lower == pytest.approx(2 * (0.8 + 0.6) / (1.5 + 1.4))
    assert compared(whole, run((*ONE[:4], 0, 0.9), TWO)).detections == pytest.approx(2 * 0.6 / 3)
    moved = compared(whole, run((60, *ONE[1:]), TWO)).detections
    assert moved == pytest.approx(2 * (0.9 * 30 / 50 + 0.6) / 3)
    assert compared(whole, run(ONE, TWO, (250, 250, 20, 20, 0.5, 0))).detections == pytest.approx(3 / 3.5)


def test_an_object_is_in_one_pair_only():
    twins = run(ONE, (50, 50, 41, 41, 0.9, 0))  # NMS leaves one
    near = run(ONE, (70, 50, 40, 40, 0.9, 0))
    assert compared(run(ONE), twins).detections > 0.9
    assert compared(run(ONE), near).detections == pytest.approx(2 * 0.9 / 2.7)


def test_without_objects_the_noise_decides():
    assert compared(run(), run()).detections is None
    noise = Agreement(4, None, None, {"output 0": -3.0})
    assert not noise.collapsed
    assert noise.noise == pytest.approx(10**0.3)
    assert Agreement(4, 1, 0.75, {}).noise == 0.25
