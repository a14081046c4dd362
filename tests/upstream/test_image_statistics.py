import numpy as np

from tests.detections import detections
from yolo_edgequant.upstream.image_statistics import ImageStatistics, joined

THREE = detections([[(0, 0.9, 10), (1, 0.8, 3)], [], [(2, 0.7, 0)]], [[0], [1, 1], []])


def test_images_are_joined_in_order_and_remembered():
    assert THREE.files.tolist() == ["0.jpg", "1.jpg", "2.jpg"]
    assert THREE.image.tolist() == [0, 0, 2]
    assert THREE.classes.tolist() == [0, 1, 2]
    assert THREE.hits.sum(1).tolist() == [10, 3, 0]
    assert (THREE.label_image.tolist(), THREE.label_classes.tolist()) == ([0, 1, 1], [0, 1, 1])
    assert THREE.boxes.shape == (3, 4)


def test_images_without_any_detection_keep_their_shapes():
    nothing = joined(
        ["a"],
        [
            {name: np.zeros(0) for name in ("scores", "classes", "label_classes")}
            | {"hits": np.zeros((0, 10)), "boxes": np.zeros((0, 5))}
        ],
    )
    assert (nothing.hits.shape, nothing.boxes.shape, nothing.scores.shape) == ((0, 10), (0, 5), (0,))
    assert joined([], []).boxes.shape == (0, 4)


def test_some_of_the_images():
    two = THREE.only([2, 0])
    assert two.files.tolist() == ["2.jpg", "0.jpg"]
    assert two.image.tolist() == [1, 1, 0]
    assert two.scores.tolist() == [0.9, 0.8, 0.7]
    assert (two.label_image.tolist(), two.label_classes.tolist()) == ([1], [0])


def test_saved_and_loaded_they_are_the_same(tmp_path):
    THREE.save(tmp_path / "images.npz")
    loaded = ImageStatistics.load(tmp_path / "images.npz")
    for name, values in vars(THREE).items():
        np.testing.assert_array_equal(getattr(loaded, name), values)
