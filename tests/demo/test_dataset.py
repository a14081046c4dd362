from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from yolo_edgequant.demo import dataset

SIZE = 64


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.*") if p.suffix != ".yaml"}


def rows(folder):
    """Labels of all images in the order in which they are drawn: (class, x, y, width, height)."""
    paths = [p for split in ("train", "val") for p in sorted((folder / "labels" / split).glob("*.txt"))]
    return np.array([line.split() for p in paths for line in p.read_text().splitlines()], float)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A folder with 12 + 5 images and the polygons that were filled, in pixels."""
    folder = tmp_path_factory.mktemp("drawn")
    polygons = []
    fill = cv2.fillPoly

    def recorded(image, points, colour, line, shift):
        polygons.extend(p / 2**shift for p in points)
        return fill(image, points, colour, line, shift)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset.cv2, "fillPoly", recorded)
        dataset.data_set(folder, 12, 5, SIZE, seed=7)
    return folder, polygons


def test_the_same_seed_draws_the_same_files(drawn, tmp_path):
    dataset.data_set(tmp_path, 12, 5, SIZE, seed=7)
    assert files(tmp_path) == files(drawn[0])


def test_a_longer_set_begins_with_the_shorter_one(drawn, tmp_path):
    dataset.data_set(tmp_path, 3, 2, SIZE, seed=7)
    assert files(tmp_path).items() <= files(drawn[0]).items()


def test_another_seed_draws_other_images(drawn, tmp_path):
    dataset.data_set(tmp_path, 12, 5, SIZE, seed=8)
    ours, others = files(drawn[0]), files(tmp_path)
    assert ours.keys() == others.keys()
    assert all(ours[name] != others[name] for name in ours if name.endswith(".png"))


def test_no_image_occurs_twice(drawn):
    images = [content for name, content in files(drawn[0]).items() if name.endswith(".png")]
    assert len(set(images)) == 17


def test_boxes_lie_inside_the_image(drawn):
    boxes = rows(drawn[0])[:, 1:]
    low, high = boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2
    assert low.min() >= -1e-6
    assert high.max() <= 1 + 1e-6
    assert boxes[:, 2:].min() > 0


def test_boxes_are_those_of_the_filled_polygons(drawn):
    folder, polygons = drawn
    found = rows(folder)
    assert len(found) == len(polygons)
    boxes = np.array([[*(p.min(0) + p.max(0)) / 2, *(p.max(0) - p.min(0))] for p in polygons]) / SIZE
    np.testing.assert_allclose(found[:, 1:], boxes, atol=1 / 16 / SIZE)


def test_classes_are_those_of_the_filled_polygons(drawn):
    folder, polygons = drawn
    corners = {48: "circle", 4: "square", 3: "triangle", 10: "star"}
    assert [dataset.NAMES[int(kind)] for kind in rows(folder)[:, 0]] == [corners[len(p)] for p in polygons]


def test_every_class_occurs(drawn):
    assert set(rows(drawn[0])[:, 0]) == {0, 1, 2, 3}


def test_every_image_has_a_shape_and_a_label_file(drawn):
    for split, count in (("train", 12), ("val", 5)):
        names = [f"{index:05d}" for index in range(count)]
        assert sorted(p.stem for p in (drawn[0] / "images" / split).iterdir()) == names
        assert sorted(p.stem for p in (drawn[0] / "labels" / split).iterdir()) == names
        assert all((drawn[0] / "labels" / split / f"{name}.txt").read_text() for name in names)
        assert cv2.imread(str(drawn[0] / "images" / split / "00000.png")).shape == (SIZE, SIZE, 3)


def test_the_yaml_names_the_folders_and_the_classes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = dataset.data_set(Path("made/here"), 1, 2, SIZE)
    content = yaml.safe_load(file.read_text())
    assert content["names"] == dict(enumerate(dataset.NAMES))
    monkeypatch.chdir("/")
    assert len(list(Path(content["path"], content["train"]).glob("*.png"))) == 1
    assert len(list(Path(content["path"], content["val"]).glob("*.png"))) == 2


def test_the_pixels_that_a_shape_changes_fill_its_box(monkeypatch):
    def pictures():
        return [dataset.picture(SIZE, np.random.default_rng(seed)) for seed in range(60)]

    drawn = pictures()
    monkeypatch.setattr(dataset.cv2, "fillPoly", lambda *args: None)
    monkeypatch.setattr(dataset.cv2, "polylines", lambda *args: None)
    pairs = [
        (a, b, shapes[0].outline) for (a, shapes), (b, _) in zip(drawn, pictures(), strict=True) if len(shapes) == 1
    ]
    assert len(pairs) >= 5
    for with_shape, without, polygon in pairs:
        rows, columns = np.nonzero((with_shape != without).any(2))
        found = [columns.min(), rows.min(), columns.max(), rows.max()]
        np.testing.assert_allclose(found, [*polygon.min(0), *polygon.max(0)], atol=2)


@pytest.mark.parametrize(("name", "corners"), [("circle", 48), ("square", 4), ("triangle", 3), ("star", 10)])
def test_outlines_touch_their_circle(name, corners):
    polygon, frame = dataset.placed(name, np.array([5.0, 7.0]), 3.0, 0.4, 1.0)
    lengths = np.linalg.norm(polygon - [5, 7], axis=1)
    assert polygon.shape == (corners, 2)
    np.testing.assert_allclose(lengths[:: 2 if name == "star" else 1], 3.0)
    if name == "star":
        np.testing.assert_allclose(lengths[1::2], 1.35)
    assert frame.shape == (4, 2)


@pytest.mark.parametrize("name", dataset.NAMES)
def test_a_frame_is_the_box_of_the_shape_turned_back(name):
    turn = 0.7
    first_corner = np.pi / 4 if name == "square" else 0
    polygon, frame = dataset.placed(name, np.array([50.0, 40.0]), 20.0, turn + first_corner, 0.5)
    back = np.array([(np.cos(turn), -np.sin(turn)), (np.sin(turn), np.cos(turn))])
    upright, box = (polygon - (50, 40)) @ back, (frame - (50, 40)) @ back
    np.testing.assert_allclose(box[[0, 2]], [upright.min(0), upright.max(0)], atol=1e-9)
    width, height = np.ptp(upright, axis=0)
    assert height < 0.6 * width


def labels(folder, task):
    dataset.data_set(folder, 0, 6, SIZE, seed=2, task=task)
    lines = [line for file in sorted((folder / "labels/val").glob("*.txt")) for line in file.read_text().splitlines()]
    return [np.array(line.split()[1:], float) for line in lines]


def test_labels_of_each_task_are_of_the_same_shapes(tmp_path):
    boxes, polygons, poses = (labels(tmp_path / task, task) for task in ("detect", "segment", "pose"))
    assert len(boxes) == len(polygons) == len(poses) > 6
    for box, polygon, pose in zip(boxes, polygons, poses, strict=True):
        points = polygon.reshape(-1, 2)
        np.testing.assert_allclose([*(points.min(0) + points.max(0)) / 2, *np.ptp(points, axis=0)], box, atol=1e-5)
        np.testing.assert_allclose(pose[:4], box)
        top, right, bottom, left, middle = pose[4:].reshape(5, 3)
        assert {top[2], right[2], bottom[2], left[2], middle[2]} == {2}
        low, high = box[:2] - box[2:] / 2, box[:2] + box[2:] / 2
        np.testing.assert_allclose([left[0], top[1], right[0], bottom[1]], [*low, *high], atol=1e-5)
    assert "kpt_shape: [5, 3]" in (tmp_path / "pose/shapes.yaml").read_text()


def test_rotated_labels_are_rectangles(tmp_path):
    for corners in labels(tmp_path, "obb"):
        sides = np.roll(corners.reshape(4, 2), -1, 0) - corners.reshape(4, 2)
        np.testing.assert_allclose(sides[0], -sides[2], atol=1e-5)
        assert abs(sides[0] @ sides[1]) < 1e-5
