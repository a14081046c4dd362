import json

import numpy as np
import pytest

from yolo_edgequant.runtime.detections import Detections, rectangle


def detections(**more):
    fields = {
        "boxes": np.array([[10, 20, 50.126, 60], [1, 2, 3, 4]], np.float32),
        "scores": np.array([0.9, 0.25], np.float32),
        "classes": np.array([1, 0]),
        "names": {0: "cat", 1: "dog"},
        "rotated": None,
        "keypoints": None,
        "masks": None,
        "milliseconds": {"letterbox": 0.1, "inference": 2.0, "decoding": 0.3},
    }
    return Detections(**fields | more)


def test_objects_as_plain_values():
    assert len(detections()) == 2
    rows = detections().as_dicts()
    assert rows[0] == {"name": "dog", "class": 1, "score": 0.9, "box": pytest.approx([10, 20, 50.13, 60], abs=1e-4)}
    assert rows[1]["name"] == "cat"
    more = detections(rotated=np.ones((2, 5)), keypoints=np.zeros((2, 3, 2)), masks=np.ones((2, 4, 4), bool)).as_dicts()
    assert more[0]["rotated"] == [1.0] * 5
    assert more[1]["keypoints"] == [[0.0, 0.0]] * 3
    assert "masks" not in more[0]
    json.dumps(more)


def test_the_corners_of_rotated_boxes():
    flat, turned = rectangle(np.array([[50, 40, 20, 10, 0], [50, 40, 20, 10, np.pi / 2]], np.float32))
    assert sorted(map(tuple, flat.round(3).tolist())) == [(40, 35), (40, 45), (60, 35), (60, 45)]
    assert sorted(map(tuple, turned.round(3).tolist())) == [(45, 30), (45, 50), (55, 30), (55, 50)]
    sides = np.linalg.norm(flat - np.roll(flat, 1, 0), axis=1)
    assert sorted(sides.round(3).tolist()) == [10, 10, 20, 20], "in turn"
