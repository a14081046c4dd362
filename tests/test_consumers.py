"""How programs of other people are compared, and Frigate's arithmetic on a file of ours.

The programs from PyPI are run by `python -m tests.consumers`; their environment takes too long to make here.
"""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.consumers import frigate
from tests.consumers.comparison import Agreement, Objects, compare
from yolo_edgequant.decoding import in_numpy

BOX, OTHER = [10.0, 10.0, 110.0, 110.0], [200.0, 10.0, 260.0, 90.0]


def objects(*rows):
    """Rows of score, class and box."""
    places = np.array([row[2:] for row in rows], np.float32).reshape(-1, 4)
    return Objects(places, np.array([row[0] for row in rows], np.float32), np.array([row[1] for row in rows], int))


def agreement(found, reference, candidates=None):
    return compare([found], [reference], [candidates or reference], conf=0.25)


def test_the_same_objects_in_another_order_are_the_same():
    found = agreement(objects((0.5, 1, *OTHER), (0.9, 0, *BOX)), objects((0.9, 0, *BOX), (0.5, 1, *OTHER)))
    assert (found.same, found.kept, found.wrong, found.lost) == (2, 0, 0, 0)
    assert found.accepted(own_nms=False)
    assert (found.overlap, found.score) == (1, 0)


@pytest.mark.parametrize(
    "wrong",
    [(0.9, 1, *BOX), (0.88, 0, *BOX), (0.9, 0, 12.0, *BOX[1:])],
    ids=["class", "score", "box, IoU 0.98"],
)
def test_what_differs_is_wrong_and_the_right_one_lost(wrong):
    found = agreement(objects(wrong), objects((0.9, 0, *BOX)))
    assert (found.same, found.wrong, found.lost) == (0, 1, 1)
    assert "score" in found.reason
    assert not found.accepted(own_nms=True)


def test_an_object_that_nms_suppressed_is_kept_not_wrong():
    near = [14.0, 10.0, 114.0, 110.0]
    found = agreement(
        objects((0.9, 0, *BOX), (0.8, 0, *near)), objects((0.9, 0, *BOX)), objects((0.9, 0, *BOX), (0.8, 0, *near))
    )
    assert (found.same, found.kept, found.wrong) == (1, 1, 0)
    assert found.accepted(own_nms=True)
    assert not found.accepted(own_nms=False)


def test_at_the_threshold_either_is_right():
    at_it = (0.253, 0, *OTHER)
    assert agreement(objects((0.9, 0, *BOX)), objects((0.9, 0, *BOX), at_it)).lost == 0
    found = agreement(objects((0.9, 0, *BOX), at_it), objects((0.9, 0, *BOX)), objects((0.9, 0, *BOX), at_it))
    assert (found.same, found.kept, found.wrong) == (2, 0, 0)


def test_whole_pixels_are_near_enough_where_that_is_said():
    small = objects((0.9, 0, 10.4, 10.4, 20.4, 20.4))
    rounded = objects((0.9, 0, 10, 10, 20, 20))
    assert compare([rounded], [small], [small], conf=0.25).wrong == 1
    assert compare([rounded], [small], [small], conf=0.25, pixels=0.5).same == 1


def test_nothing_found_is_not_accepted():
    assert not Agreement(reference=0, found=0).accepted(own_nms=True)
    found = agreement(objects(), objects((0.9, 0, *BOX)))
    assert found.lost == 1


def test_masks_and_keypoints_are_compared():
    half = np.zeros((1, 4, 4), bool)
    half[:, :2] = True
    one = Objects(np.array([BOX]), np.array([0.9]), np.array([0]), half, np.array([[[3.0, 4.0]]]))
    two = Objects(one.boxes, one.scores, one.classes, ~np.zeros_like(half), np.array([[[0.0, 0.0]]]))
    found = agreement(one, two)
    assert (found.masks, found.keypoints) == ([0.5], 5)
    assert not found.accepted(own_nms=True)  # the box is the same, the mask is not


def test_frigate_knows_its_outputs_by_their_shapes():
    assert frigate.roles([(1, 2100, 80), (1, 2100, 64)]) == (1, 0)
    assert frigate.roles([(1, 2100, 64), (1, 2100, 1), (1, 2100, 80)]) == (0, 2)
    with pytest.raises(ValueError, match="found 6, expecting 2 or 3"):
        frigate.roles([(1, 400, 64)] * 6)
    with pytest.raises(ValueError, match="unexpected shapes"):
        frigate.roles([(1, 84, 8400), (1, 32, 8400)])


def test_frigate_decodes_as_we_do():
    random = np.random.default_rng(0)
    cells = 20 * 40 + 10 * 20 + 5 * 10
    boxes = frigate.Stored(random.integers(-128, 128, (1, cells, 64)).astype(np.int8), 0.1, 3)
    logits = frigate.Stored(random.integers(-128, 100, (1, cells, 3)).astype(np.int8), 0.05, 90)
    found = frigate.edgetpu(boxes, logits, (160, 320))
    values = (logits.array[0].astype(np.float32) - 90) * np.float32(0.05)
    scores = in_numpy.sigmoid(values)
    rows = np.flatnonzero(scores.max(1) > 0.42)
    near = np.isin(np.flatnonzero(logits.array[0].max(1) >= int(np.log(0.4 / 0.6) / 0.05 + 90)), rows)
    grid = in_numpy.cells(rows, (8, 16, 32), (160, 320))
    distances = in_numpy.distances((boxes.array[0][rows].astype(np.float32) - 3) * np.float32(0.1), 16)
    np.testing.assert_allclose(found.boxes[near], in_numpy.boxes(distances, *grid), atol=1e-2)
    np.testing.assert_allclose(found.scores[near], scores[rows].max(1), atol=1e-5)
    assert (found.classes[near] == scores[rows].argmax(1)).all()
    assert (found.order >= 0).all()


def test_frigate_takes_corners_for_sizes():
    far = np.array([[300, 300, 340, 340], [350, 300, 390, 340]], np.float32)  # apart, and far from the corner
    found = frigate.Candidates(far, np.array([0.9, 0.8]), np.array([0, 0]), np.array([0.9, 0.8]), 0.4)
    assert frigate.kept(found).tolist() == [0]
    near = frigate.Candidates(far - 300, *[getattr(found, n) for n in ("scores", "classes", "order", "lowest")])
    assert frigate.kept(near).tolist() == [0, 1]


@pytest.mark.export
def test_frigate_reads_a_merged_file(tmp_path, shapes_model, shapes_data):
    from ultralytics import YOLO

    from tests.consumers import __main__ as consumers
    from tests.consumers.programs.program import LiteRT

    file = Path(
        YOLO(shapes_model).export(
            format="tflite", quantize=8, data=shapes_data, imgsz=160, head="raw", outputs="merged"
        )
    )
    assert consumers.kind(file) == "merged"
    paths = consumers.squares(consumers.drawn(), consumers.input_size(file), tmp_path / "images")
    model = LiteRT(str(file))
    boxes, logits = frigate.roles([tuple(output["shape"]) for output in model.outputs])
    found, every = [], []
    for path in paths:
        arrays = model(cv2.imread(str(path)))
        stored = [frigate.Stored(a, *o["quantization"]) for a, o in zip(arrays, model.outputs, strict=True)]
        candidates = frigate.edgetpu(stored[boxes], stored[logits], model.size)
        every.append(Objects(candidates.boxes.clip(0, 160), candidates.scores, candidates.classes))
        keep = frigate.kept(candidates)
        found.append(Objects(every[-1].boxes[keep], candidates.scores[keep], candidates.classes[keep]))
    reference = consumers.predictions(file, "detect", paths, conf=0.4, iou=0.7)
    without_nms = consumers.predictions(file, "detect", paths, conf=0.35, iou=1.0, max_det=2000)
    assert sum(map(len, reference)) >= 20
    assert compare(found, reference, without_nms, 0.4).accepted(own_nms=True)
    assert compare(every, reference, without_nms, 0.4).lost == 0  # what its NMS loses, its decoding had


def test_the_table_says_what_failed():
    from tests.consumers import __main__ as consumers

    good = Agreement(reference=2, found=2, same=2)
    said = consumers.table({"sahi": {"a": good, "b": "KeyError: 2000"}})
    assert "| sahi | a | 2 | 2 | 2 | 0 | 0 | 0 | 1.0000 | 0.0000 |  |" in said
    assert "FAILED: KeyError: 2000" in said


def test_what_programs_write_is_read():
    row = {"boxes": [[-5, 2, 50, 400]], "scores": [0.5], "classes": [3]}
    read = Objects.read(json.loads(json.dumps(row)), (300, 200))
    np.testing.assert_array_equal(read.boxes, [[0, 2, 50, 300]])  # clipped, as predict's are
    assert len(Objects.read({"boxes": [], "scores": [], "classes": []}, (300, 200))) == 0
