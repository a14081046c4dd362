import weakref
from dataclasses import replace

import numpy as np
import pytest

from yolo_edgequant.contract import Contract, Output, Raw
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


def test_how_scores_of_what_both_found_have_changed():
    whole = run(ONE, TWO, THREE)
    lower = run((*ONE[:4], 0.8, 0), (*TWO[:4], 0, 0.54), (*THREE[:4], 0.82, 0))
    assert compared(whole, lower).score_change == pytest.approx((-0.1 - 0.06 + 0.02) / 3)
    assert compared(whole, whole).score_change == 0
    moved = run((*ONE[:4], 0.8, 0), (175, *TWO[1:4], 0, 0.3))  # which overlaps by less than half
    assert compared(whole, moved).score_change == pytest.approx(-0.1)
    assert compared(whole, run()).score_change is None


def test_an_object_is_in_one_pair_only():
    twins = run(ONE, (50, 50, 41, 41, 0.9, 0))  # NMS leaves one
    near = run(ONE, (70, 50, 40, 40, 0.9, 0))
    assert compared(run(ONE), twins).detections > 0.9
    assert compared(run(ONE), near).detections == pytest.approx(2 * 0.9 / 2.7)
    both, far = run((60, *ONE[1:]), (40, *ONE[1:])), run(ONE, (250, 250, 40, 40, 0.9, 0))
    for reference, quantized in ((far, both), (both, far)):  # each of both has 60 % of the one, and none of the other
        assert compared(reference, quantized).detections == pytest.approx(2 * 0.9 * 0.6 / 3.6)


def test_without_objects_the_noise_decides():
    assert compared(run(), run()).detections is None
    noise = Agreement(4, None, None, {"output 0": -3.0})
    assert not noise.collapsed
    assert noise.noise == pytest.approx(10**0.3)
    assert Agreement(4, 1, 0.75, {}).noise == 0.25


def test_noise_is_compared_in_the_tensors_units_and_scores_after_the_sigmoid():
    random = np.random.default_rng(0)
    boxes, logits = random.normal(0, 2, (1, 100, 4)), random.normal(-4, 4, (1, 100, 2))
    raw = replace(
        CONTRACT,
        head="raw",
        outputs=tuple(Output(name, stride) for name in ("boxes", "scores") for stride in (32, 64)),
        strides=(32, 64),
        raw=Raw(True, 1),
    )
    empty = np.full((1, 25, 2), -20.0)  # no object at this level
    floats = [boxes, np.zeros((1, 25, 4)), logits, empty]
    reference = Run(
        [Tensor(values.shape, np.dtype(np.float32)) for values in floats], [[v.astype(np.float32) for v in floats]]
    )
    stored = [Tensor(values.shape, np.dtype(np.int8), 0.1, 3) for values in floats]
    quantized = Run(stored, [[tensor.stored(values) for tensor, values in zip(stored, floats, strict=True)]])
    snr = compare(raw, (320, 320), reference, quantized).snr_db
    assert list(snr) == ["boxes_32", "boxes_64", "scores_32"]
    assert snr["boxes_32"] == pytest.approx(10 * np.log10(4 / (0.1**2 / 12)), abs=1)
    probabilities = 1 / (1 + np.exp(-logits))
    error = np.square(probabilities - 1 / (1 + np.exp(-stored[2].values(quantized.outputs[0][2])))).mean()
    assert snr["scores_32"] == pytest.approx(10 * np.log10(probabilities.var() / error), abs=0.1)


def test_rows_of_final_detections_have_no_noise_for_they_change_places():
    row = np.array([[[10, 10, 50, 50, 0.9, 1]]], np.float32)
    final = Run([Tensor((1, 1, 6), np.dtype(np.float32))], [[row]])
    agreement = compare(replace(CONTRACT, nms=True), (320, 320), final, final)
    assert agreement.snr_db == {}
    assert agreement.detections == pytest.approx(1)


def test_tasks_without_boxes_have_noise_alone():
    values = np.random.default_rng(0).normal(0, 1, (1, 10)).astype(np.float32)
    one, other = (Run([Tensor((1, 10), np.dtype(np.float32))], [[array]]) for array in (values, values * 0.9))
    agreement = compare(replace(CONTRACT, task="classify", outputs=()), (320, 320), one, other)
    assert (agreement.objects, agreement.detections) == (None, None)
    assert agreement.snr_db == {"output 0": pytest.approx(20, abs=1)}
    assert not agreement.collapsed


def test_outputs_are_gone_through_once_and_not_kept():
    alive = []

    def stream():
        for _ in range(6):
            (outputs,) = run(ONE, TWO, THREE).outputs
            alive.append(weakref.ref(outputs[0]))
            assert sum(reference() is not None for reference in alive) <= 6, "two models, the last three images"
            yield outputs

    tensors = run().tensors
    agreement = compare(CONTRACT, (320, 320), Run(tensors, stream()), Run(tensors, stream()))
    assert (agreement.images, agreement.objects) == (6, 18)
    assert agreement.detections == pytest.approx(1)
