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
