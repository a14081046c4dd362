import numpy as np
import pytest


@pytest.fixture
def detections():
    """Makes a detector's answer of one dog, or of what is given."""
    from yolo_edgequant.runtime.detections import Detections

    def make(**more):
        fields = {
            "boxes": np.array([[10, 20, 50, 60]], np.float32),
            "scores": np.array([0.9], np.float32),
            "classes": np.array([1]),
            "names": {0: "cat", 1: "dog"},
            "rotated": None,
            "keypoints": None,
            "masks": None,
            "milliseconds": {"letterbox": 0.1, "inference": 2.0, "decoding": 0.3},
        }
        return Detections(**fields | more)

    return make
