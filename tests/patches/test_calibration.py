"""The calibration images of an export of ours: which, in what order, and as a data set to validate on."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from torch.utils.data import DataLoader
from ultralytics import YOLO
from ultralytics.engine.exporter import Exporter

from yolo_edgequant.options import ExportOptions
from yolo_edgequant.patches import calibration, litert
from yolo_edgequant.patches.exporter import ExportJob
from yolo_edgequant.targets.formats import PROFILES, resolve

REQUEST = resolve(PROFILES["litert"], ExportOptions())


def exporter(data, job=ExportJob(REQUEST, None), **arguments):  # noqa: B008
    """One that is about to ask for its images."""
    settings = {"format": "litert", "data": str(data), "imgsz": 160, "task": "detect", "quantize": 8, "batch": 1}
    one = Exporter(overrides={**settings, **arguments})
    one.imgsz, one.model = [160, 160], SimpleNamespace(task="detect")
    if job is not None:
        one.edgequant_job = job
    return one


def names(loader):
    return [Path(file).stem for item in loader for file in item["im_file"]]


def test_images_come_in_order_and_all_of_them(shapes_data):
    loader = exporter(shapes_data, split="train").get_int8_calibration_dataloader()
    expected = sorted(file.stem for file in (shapes_data.parent / "images/train").iterdir())
    assert names(loader) == names(loader) == expected


def test_an_export_of_upstreams_has_upstreams_loader(shapes_data):
    loader = exporter(shapes_data, job=None, split="train").get_int8_calibration_dataloader()
    assert type(loader).__name__ == "InfiniteDataLoader"


def test_a_model_that_was_trained_needs_no_images():
    trained = ExportJob(REQUEST, torch.nn.Identity())
    assert exporter("none", trained).get_int8_calibration_dataloader() is None


def test_split_and_fraction_choose_the_images_and_few_are_warned_of(shapes_data, logged):
    for arguments, count in (
        ({"split": "train"}, 24),
        ({"split": "val"}, 40),
        ({"split": "train", "fraction": 0.5}, 12),
    ):
        loader = exporter(shapes_data, **arguments).get_int8_calibration_dataloader("here:")
        assert len(loader.dataset) == count
        assert f"here: calibrating on {count} images; fewer than 100" in logged[-1]


def test_one_image_in_eight_is_held_back(shapes_model, shapes_data, monkeypatch):
    counts = []

    def calibrate(graph, contract, request, images):
        images = list(images)
        counts.append(len(images))
        assert {image.shape for image in images} == {(1, 3, 160, 160)}
        raise RuntimeError("seen")

    monkeypatch.setattr(litert, "convert", lambda model, image, contract: (None, contract))
    monkeypatch.setattr(litert, "calibrate", calibrate)
    for arguments in ({"split": "train"}, {"split": "val"}, {"split": "train", "fraction": 0.5}):
        with pytest.raises(RuntimeError, match="seen"):
            YOLO(shapes_model).export(format="litert", quantize=8, data=shapes_data, imgsz=160, **arguments)
    assert counts == [21, 35, 11]


def test_a_short_batch_is_filled_by_repeating():
    images = torch.arange(3, dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 3, 2, 4)
    batches = calibration.Batches([{"img": images[:2]}, {"img": images[2:]}], 2, channels_last=False)
    assert len(batches) == len(list(batches)) == 2
    first, second = batches  # a second time
    assert first.shape == second.shape == (2, 3, 2, 4)
    assert first.dtype == np.float32
    np.testing.assert_allclose(first[:, 0, 0, 0] * 255, [0, 1])
    np.testing.assert_allclose(second[:, 0, 0, 0] * 255, [2, 2])


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_batch_can_be_had_by_its_number(channels_last):
    items = [{"img": torch.full((3, 2, 4), number, dtype=torch.uint8)} for number in range(6)]
    batches = calibration.Batches(DataLoader(items, 2), 2, channels_last)
    for number, images in enumerate(batches):
        np.testing.assert_array_equal(batches[number], images)
    assert number == 2


def test_channels_come_last_where_the_file_has_them_last():
    image = torch.arange(24, dtype=torch.uint8).view(1, 3, 2, 4)
    (values,) = calibration.Batches([{"img": image}], 1, channels_last=True)
    assert values.shape == (1, 2, 4, 3)
    assert values.flags.c_contiguous
    np.testing.assert_allclose(values[0, 1, 2] * 255, image[0, :, 1, 2])


def test_a_file_is_validated_on_the_calibration_images_alone(shapes_data, monkeypatch, tmp_path):
    calls = []

    def accuracy(file, data, task, **arguments):
        facts = yaml.safe_load(Path(data).read_text())
        calls.append((file, facts["names"], Path(facts["val"]).read_text().split(), task, arguments))
        return 0.5

    monkeypatch.setattr(calibration.validation, "accuracy", accuracy)
    one = exporter(shapes_data, split="train", fraction=0.5)
    one.metadata = {"names": {0: "circle"}, "stride": 32}
    with calibration.search(one, tmp_path / "report.json") as search:
        assert search.evaluate(tmp_path / "file.tflite") == 0.5
        assert search.report == tmp_path / "report.json"
    ((file, names, images, task, arguments),) = calls
    assert (file, names, task) == (tmp_path / "file.tflite", {0: "circle"}, "detect")
    assert len(images) == 12
    assert arguments == {"imgsz": 160, "batch": 1, "workers": 0}
    assert {Path(image).parent for image in images} == {(shapes_data.parent / "images/train").resolve()}
