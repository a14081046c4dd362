import cv2
import numpy as np
import pytest

from yolo_edgequant.errors import InferenceError
from yolo_edgequant.inspection.drawing import drawn, read
from yolo_edgequant.runtime.detections import Detections


def test_the_first_pictures_of_a_folder(pictures):
    names = [name for name, _ in read(pictures, 2)]
    assert names == ["0.png", "1.png"]
    assert len(read(pictures / "2.png", 9)) == 1
    with pytest.raises(InferenceError, match="no image at"):
        read(pictures / "none", 1)


@pytest.mark.parametrize(("size", "expected"), [((960, 640), (480, 320)), ((100, 50), (100, 50))])
def test_a_picture_is_made_small_and_has_its_boxes(size, expected):
    image = np.zeros((*size, 3), np.uint8)
    box = np.array([[10, 10, 40, 90]], np.float32)
    objects = Detections(box, np.ones(1, np.float32), np.zeros(1, np.int64), {0: "a"}, None, None, None, {})
    shown = cv2.imdecode(np.frombuffer(drawn(image, objects), np.uint8), cv2.IMREAD_COLOR)
    assert shown.shape[:2] == expected
    assert shown.max() > 100
