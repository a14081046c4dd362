"""Files of ours in the one reader of releases before 8.4.23; a run in such a release is in tests/versions.py."""

import pytest
import torch
from torch import nn
from ultralytics import YOLO

from yolo_edgequant.patches import autobackend

pytestmark = pytest.mark.export


class Reader(nn.Module):
    """As AutoBackend was: one class, whose attributes say what it reads."""

    def __init__(self, model):
        autobackend.load(self.upstreams, self, model)

    @staticmethod
    def upstreams(self, model):
        nn.Module.__init__(self)
        self.pt = True

    def from_numpy(self, values):
        return torch.as_tensor(values)

    def forward(self, im, augment=False):
        return autobackend.forward(lambda self, im, augment=False: ("upstream's", augment), self, im, augment=augment)


@pytest.mark.parametrize(("format", "head"), [("tflite", "int8"), ("litert", "float"), ("openvino", "raw")])
def test_a_file_is_read_as_by_todays_backends(
    shapes_model, shapes_data, converted_once, images, monkeypatch, format, head
):
    monkeypatch.setattr(autobackend, "AutoBackend", Reader)
    with converted_once():
        file = YOLO(shapes_model).export(format=format, quantize=8, data=shapes_data, imgsz=160, head=head)
    reader = Reader(file)
    assert (reader.stride, reader.pt, reader.task, reader.fp16, reader.end2end) == (32, False, "detect", False, False)
    assert reader.names == YOLO(shapes_model).names
    from ultralytics.nn.autobackend import AutoBackend

    today = AutoBackend(file)
    image = torch.rand(1, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(torch.as_tensor(reader(image)), torch.as_tensor(today(image)), atol=1e-3, rtol=1e-3)


def test_another_file_is_upstreams(monkeypatch, tmp_path):
    monkeypatch.setattr(autobackend, "AutoBackend", Reader)
    other = tmp_path / "other.tflite"
    other.write_bytes(b"no metadata")
    for file in (str(other), nn.Identity()):
        reader = Reader(file)
        assert reader.pt
        assert reader(torch.zeros(1), augment=True) == ("upstream's", True)
