import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from ultralytics import YOLO

import yolo_edgequant


@pytest.fixture(scope="module")
def stock(tmp_path_factory, shapes_data):
    """A LiteRT INT8 file of Ultralytics' own."""
    from yolo_edgequant.demo.train import WEIGHTS

    model = Path(shutil.copy(WEIGHTS, tmp_path_factory.mktemp("stock")))
    yolo_edgequant.disable()
    made = YOLO(model).export(format="litert", quantize=8, data=shapes_data, split="train", imgsz=160)
    yolo_edgequant.enable()
    return made


def test_files_of_stock_ultralytics_give_what_they_gave(stock, shapes_data):
    from ultralytics.nn.autobackend import AutoBackend

    image = torch.rand(1, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    with_patches = AutoBackend(stock)(image)
    yolo_edgequant.disable()
    without = AutoBackend(stock)(image)
    assert torch.equal(with_patches, without)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "format"), [("yolov8n-cls", "tflite"), ("yolo26n-sem", "litert"), ("yolo26n-depth", "litert")]
)
def test_a_task_without_boxes_gives_outputs_near_the_checkpoints(tmp_path, monkeypatch, name, format):
    """Random weights: shapes, order and units are what is tested; tasks with boxes have trained models."""
    from ultralytics.nn.autobackend import AutoBackend

    from yolo_edgequant.upstream import export

    torch.manual_seed(0)
    model = YOLO(f"{name}.yaml")
    model.model.train()
    images = torch.rand(8, 3, 64, 96)
    for _ in range(12):
        model.model(images)  # statistics of the normalisation layers, so that activations vary
    model.model.eval()
    model.ckpt_path = str(tmp_path / "model.pt")
    model.model.pt_path = model.ckpt_path
    monkeypatch.setattr(export, "_check_data", lambda args, task: None)
    loader = torch.utils.data.DataLoader([{"img": (images[i] * 255).to(torch.uint8)} for i in range(8)], batch_size=1)
    from ultralytics.engine.exporter import Exporter

    monkeypatch.setattr(Exporter, "get_int8_calibration_dataloader", lambda self, prefix="": loader)
    made = model.export(format=format, quantize=8, data="drawn", imgsz=[64, 96])
    seen = AutoBackend(made)(images[:1])
    model.model.model[-1].export = True
    expected = model.model(images[:1])
    expected = (expected[0] if isinstance(expected, tuple) else expected).detach()
    assert seen.shape == expected.shape
    noise, signal = seen - expected, expected - expected.mean()
    assert noise.abs().max() < 0.02 or 10 * np.log10(signal.square().mean() / noise.square().mean()) > 15
