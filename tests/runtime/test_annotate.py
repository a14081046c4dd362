import numpy as np

from yolo_edgequant.runtime.annotate import annotate

IMAGE = np.zeros((100, 120, 3), np.uint8)


def test_boxes_are_drawn_into_a_copy(detections):
    drawn = annotate(IMAGE, detections())
    assert not IMAGE.any()
    assert drawn[60, 30].any()
    assert drawn[40, 10].any()
    assert not drawn[40, 30].any(), "nothing inside"
    assert not drawn[90, 100].any()


def test_masks_cover_their_pixels(detections):
    mask = np.zeros((1, 100, 120), bool)
    mask[0, 30:50, 20:40] = True
    drawn = annotate(IMAGE, detections(masks=mask))
    assert drawn[30:50, 20:40].any(2).all()
    assert not drawn[52, 30].any()


def test_keypoints_that_are_seen(detections):
    points = np.array([[[30, 40, 0.9], [100, 90, 0.1]]], np.float32)
    drawn = annotate(IMAGE, detections(keypoints=points))
    assert drawn[40, 30].any()
    assert not drawn[90, 100].any()
    assert annotate(IMAGE, detections(keypoints=points[..., :2]))[90, 100].any(), "without a visibility all are"


def test_rotated_boxes_are_drawn_turned(detections):
    turned = annotate(IMAGE, detections(rotated=np.array([[30, 40, 40, 40, np.pi / 4]], np.float32)))
    assert turned[40, 58].any()
    assert not turned[60, 12].any()


def test_classes_have_colours_of_their_own(detections):
    one, other = (annotate(IMAGE, detections(classes=np.array([kind])))[60, 30] for kind in (0, 1))
    assert one.tolist() != other.tolist()
