import cv2
import numpy as np
import pytest

from tests import graphs
from yolo_edgequant import contract
from yolo_edgequant.errors import UnsupportedModelError
from yolo_edgequant.inspection.finder import finder
from yolo_edgequant.runtime import Detector
from yolo_edgequant.tflite import packing


@pytest.fixture
def bare(files, tmp_path):
    """The int8 file without our contract."""
    path = tmp_path / "bare.tflite"
    path.write_bytes(packing.constants_inside(files["int8"].read_bytes()))
    return path


def test_a_file_without_a_contract_shows_what_it_shows_with_one(files, bare, pictures):
    count = 0
    for path in sorted(pictures.iterdir()):
        image = cv2.imread(str(path))
        ours, bares = finder(files["int8"])(image), finder(bare)(image)
        np.testing.assert_array_equal(ours.boxes, bares.boxes)
        np.testing.assert_array_equal(ours.boxes, Detector(files["int8"], conf=0.25)(image).boxes)
        count += len(ours)
        assert set(bares.names.values()) == {"0", "1", "2", "3"}
        assert set(ours.names.values()) == set(graphs.NAMES)
    assert count > 2


@pytest.mark.parametrize("unit", [1, 64])
def test_boxes_in_pixels_and_in_shares_are_told_apart(unit, tmp_path):
    """A file that gives one object whatever it sees: at (32, 16), 20 x 10, of 64 pixels."""
    values = np.zeros((6, 8))
    values[:4, 3], values[5, 3] = np.array([32, 16, 20, 10]) * unit / 64, 0.9
    network = graphs.Network(1, 64, 64, 3)
    pooled = network.input
    for _ in range(6):
        pooled = network.max_pool(pooled)
    flat = network.conv(pooled, np.zeros((48, 1, 1, 3)), values.ravel())
    output = network.add("RESHAPE", (flat, network.constant([1, 6, 8], np.int32)), (1, 6, 8))
    path = tmp_path / "one.tflite"
    path.write_bytes(network.content(output))
    objects = finder(path)(np.zeros((128, 128, 3), np.uint8))
    np.testing.assert_allclose(objects.boxes, [[44, 22, 84, 42]], atol=1e-3)
    assert objects.classes.tolist() == [1]


def test_names_come_from_ultralytics_metadata(bare, tmp_path):
    import json
    import zipfile

    with zipfile.ZipFile(bare, "a") as archive:
        archive.writestr("metadata.json", json.dumps({"names": {"0": "a\nb", "1": 7}}))
    assert contract.metadata_of(bare)["names"]["1"] == 7
    image = np.zeros((40, 40, 3), np.uint8)
    assert finder(bare)(image).names == {0: "a b", 1: "7", 2: "2", 3: "3"}


def test_outputs_that_nobody_can_decode(files, tmp_path):
    path = tmp_path / "raw.tflite"
    path.write_bytes(packing.constants_inside(files["raw"].read_bytes()))
    with pytest.raises(UnsupportedModelError, match="only \\(1, 4 \\+ classes, cells\\) is read without a contract"):
        finder(path)
