from pathlib import Path

import numpy as np
import pytest

from yolo_edgequant.errors import InferenceError
from yolo_edgequant.runtime.accuracy import Boxes, accuracy, labels_folder, read_labels

BOX = [10.0, 10.0, 50.0, 50.0]
ASIDE = [12.0, 10.0, 52.0, 50.0]  # IoU 38 / 42 = 0.905 with BOX


def boxes(*rows, scores=None):
    places = np.array([row[1:] for row in rows], np.float32).reshape(-1, 4)
    classes = np.array([row[0] for row in rows], np.int64)
    return Boxes(places, classes, None if scores is None else np.array(scores, np.float32))


def test_the_same_boxes_are_wholly_right():
    found = accuracy([boxes([0, *BOX], scores=[0.9])], [boxes([0, *BOX])])
    assert found.map == pytest.approx(1, abs=0.006)  # 101 points: the last one has no precision
    assert (found.images, found.labels) == (1, 1)


def test_an_overlap_counts_up_to_its_threshold():
    found = accuracy([boxes([0, *ASIDE], scores=[0.9])], [boxes([0, *BOX])])
    assert found.map50 == pytest.approx(1, abs=0.006)
    assert found.map == pytest.approx(0.9 * found.map50)  # right at 0.50 to 0.90, wrong at 0.95


def test_a_label_is_found_once():
    twice = boxes([0, *BOX], [0, *BOX], scores=[0.9, 0.8])
    two = boxes([0, *BOX], [0, 60.0, 60.0, 90.0, 90.0])
    assert accuracy([twice], [two]).map50 == pytest.approx(0.5, abs=0.01)


def test_the_better_detection_chooses_first():
    found = boxes([0, *BOX], [0, *ASIDE], scores=[0.5, 0.9])  # the surer one takes the label at a low threshold
    assert accuracy([found], [boxes([0, *BOX])]).map50 == pytest.approx(1, abs=0.006)


def test_another_class_is_wrong_and_a_class_without_labels_does_not_count():
    found = boxes([1, *BOX], [2, *BOX], scores=[0.9, 0.9])
    assert accuracy([found], [boxes([1, *BOX])]).map50 == pytest.approx(1, abs=0.006)
    two = boxes([1, *BOX], [0, 60.0, 60.0, 90.0, 90.0])
    assert accuracy([boxes([0, *BOX], scores=[0.9])], [two]).map50 == 0, "in the place of a label of another class"


def test_nothing_found_is_zero_and_no_labels_are_an_error():
    nothing = boxes(scores=[])
    assert accuracy([nothing], [boxes([0, *BOX])]).map == 0
    with pytest.raises(InferenceError, match="no image has a label"):
        accuracy([nothing], [boxes()])


def test_labels_are_read_in_pixels_and_each_once(tmp_path):
    file = tmp_path / "one.txt"
    file.write_text("3 0.5 0.5 0.5 0.25\n\n3 0.5 0.5 0.5 0.25\n")
    read = read_labels(file, (80, 160), "detect")
    np.testing.assert_allclose(read.boxes, [[40, 30, 120, 50]])
    assert read.classes.tolist() == [3]
    assert len(read_labels(tmp_path / "none.txt", (80, 160), "detect").classes) == 0


def test_an_outline_gives_its_box_and_a_pose_its_first_numbers(tmp_path):
    file = tmp_path / "one.txt"
    file.write_text("0 0.1 0.2 0.5 0.2 0.3 0.8\n")
    np.testing.assert_allclose(read_labels(file, (100, 100), "segment").boxes, [[10, 20, 50, 80]], atol=1e-4)
    file.write_text("0 0.5 0.5 0.2 0.4 0.1 0.1 2\n")
    np.testing.assert_allclose(read_labels(file, (100, 100), "pose").boxes, [[40, 30, 60, 70]], atol=1e-4)


@pytest.mark.parametrize("line", ["0 0.5 0.5", "zero 1 1 1 1"])
def test_what_is_no_label_is_named(tmp_path, line):
    (tmp_path / "one.txt").write_text(f"0 0.5 0.5 0.1 0.1\n{line}\n")
    with pytest.raises(InferenceError, match=r"line 2, is no label"):
        read_labels(tmp_path / "one.txt", (10, 10), "detect")


def test_where_labels_lie():
    assert labels_folder(Path("/images/coco/images/val")) == Path("/images/coco/labels/val")
    assert labels_folder(Path("/pictures")) == Path("/pictures")
