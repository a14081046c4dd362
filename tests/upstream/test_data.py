import numpy as np
import pytest
import torch
from ultralytics.utils import YAML

from yolo_edgequant.errors import DataError
from yolo_edgequant.upstream import data


def test_a_data_set_is_found_with_its_splits(shapes_data):
    facts = data.check(shapes_data, ["train", "val"])
    assert facts["nc"] == 4


@pytest.mark.parametrize("wanted", [None, ""])
def test_images_are_needed(wanted):
    with pytest.raises(DataError, match=r"pass data='your\.yaml'"):
        data.check(wanted, ["val"])


def test_a_missing_split_is_named(shapes_data, tmp_path):
    facts = YAML.load(shapes_data) | {"path": str(shapes_data.parent), "test": "images/nowhere"}
    YAML.save(tmp_path / "other.yaml", facts)
    with pytest.raises(DataError, match=r"no images: .*other\.yaml.*split='test'") as error:
        data.check(tmp_path / "other.yaml", ["test"])
    assert "\n" not in str(error.value)


def test_classification_data_goes_by_a_folder_or_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "DATASETS_DIR", tmp_path)
    monkeypatch.setattr("ultralytics.data.utils.DATASETS_DIR", tmp_path)
    with pytest.raises(DataError, match="'flowers' not found"):
        data.check("flowers", ["val"], "classify")
    import cv2

    for split in ("train", "val"):
        for name in ("rose", "tulip"):
            (tmp_path / "flowers" / split / name).mkdir(parents=True)
            cv2.imwrite(str(tmp_path / "flowers" / split / name / "a.png"), np.zeros((8, 8, 3), np.uint8))
    assert data.check("flowers", ["val"], "classify")["nc"] == 2
    assert data.check(str(tmp_path / "flowers"), ["val"], "classify")["nc"] == 2


def test_calibration_is_on_what_is_given(shapes_data, caplog):
    assert data.for_calibration(shapes_data, "val", "detect") == str(shapes_data)
    assert not caplog.records
    with pytest.raises(DataError, match=r"no images: data='nowhere\.yaml'"):
        data.for_calibration("nowhere.yaml", "val", "detect")


def test_without_data_calibration_is_on_upstreams_choice_if_it_is_here(shapes_data, monkeypatch, caplog):
    monkeypatch.setattr("ultralytics.data.utils.DATASETS_DIR", shapes_data.parent.parent)
    (folder := shapes_data.parent.parent / "coco8").symlink_to(shapes_data.parent)
    try:
        assert data.for_calibration(None, "val", "detect") == "coco8.yaml"
    finally:
        folder.unlink()
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert (
        "the ranges are those of 40 images in 'coco8.yaml'; pass data='your.yaml' (100 images or more" in record.message
    )


@pytest.mark.parametrize(
    ("task", "name"), [("detect", "coco8.yaml"), ("obb", "dota8.yaml"), ("classify", "imagenet10")]
)
def test_without_data_nor_upstreams_choice_both_ways_out_are_named(task, name, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "DATASETS_DIR", tmp_path)
    monkeypatch.setattr("ultralytics.data.utils.DATASETS_DIR", tmp_path)
    with pytest.raises(DataError, match=rf"pass data='your\.yaml' .*'{name}', is not on this machine") as error:
        data.for_calibration(None, "val", task)
    assert "\n" not in str(error.value)


def test_training_images_are_spread_evenly_and_read_again(shapes_data):
    images = data.TrainingImages(shapes_data, 160, 5, batch=2)
    parts = list(images)
    assert [tuple(part.shape) for part in parts] == [(2, 3, 160, 160), (2, 3, 160, 160), (1, 3, 160, 160)]
    assert len(images) == 3
    assert all(torch.equal(one, other) for one, other in zip(parts, images, strict=True))
    every = torch.cat(list(data.TrainingImages(shapes_data, 160, 1000)))
    assert len(every) == 24
    assert torch.equal(torch.cat(parts), every[::4][:5])
    assert 0 <= every.min() < every.max() <= 1


@pytest.mark.parametrize("channels_last", [True, False])
def test_arrays_have_the_layout_of_the_file(shapes_data, channels_last):
    images = data.ImageArrays(data.TrainingImages(shapes_data, 160, 3, batch=1), channels_last)
    arrays = list(images)
    assert len(images) == len(arrays) == 3
    assert arrays[0].shape == ((1, 160, 160, 3) if channels_last else (1, 3, 160, 160))
    assert arrays[0].dtype == np.float32
    (first, *_) = data.TrainingImages(shapes_data, 160, 3, batch=1)
    expected = first.permute(0, 2, 3, 1) if channels_last else first
    assert np.array_equal(arrays[0], expected)


def test_some_images_alone_are_a_data_set(shapes_data, tmp_path):
    files = data.image_files(shapes_data, "val")[:3]
    facts = data.check(data.only(files, {"names": {0: "a", 1: "b", 2: "c", 3: "d"}}, tmp_path), ["val"])
    assert facts["nc"] == 4
    assert (tmp_path / "images.txt").read_text().splitlines() == [str(file.resolve()) for file in files]


@pytest.mark.parametrize(("fraction", "count"), [(1.0, 24), (0.376, 9), (0.01, 1)])
def test_a_share_of_a_split_is_rounded_as_ultralytics_does(shapes_data, fraction, count):
    assert data.share(shapes_data, "train", fraction) == count
    taken = data.build_yolo_dataset(
        data.get_cfg(overrides={"imgsz": 160, "fraction": fraction}),
        data.check(shapes_data, ["train"])["train"],
        1,
        data.check(shapes_data, ["train"]),
        mode="train",
    )
    assert len(taken) == count


def test_a_split_may_be_several_folders(shapes_data, tmp_path):
    content = data.YAML.load(shapes_data)
    data.YAML.save(tmp_path / "both.yaml", {**content, "val": ["images/train", "images/val"]})
    assert data.share(tmp_path / "both.yaml", "val", 1.0) == 24 + 40
    assert data.share(tmp_path / "both.yaml", "val", 0.5) == 32
