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
@pytest.mark.parametrize("task", ["segment", "pose", "obb", "classify"])
@pytest.mark.parametrize(("format", "head"), [("tflite", "float"), ("litert", "raw")])
def test_other_tasks_give_outputs_near_the_checkpoints(tmp_path, shapes_data, monkeypatch, task, format, head):
    """Random weights: shapes, order and units are what is tested."""
    from ultralytics.nn.autobackend import AutoBackend

    from yolo_edgequant.upstream import export

    torch.manual_seed(0)
    suffix = {"segment": "seg", "classify": "cls"}.get(task, task)
    model = YOLO(f"yolov8n-{suffix}.yaml")
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
    head = None if task == "classify" else head
    made = model.export(format=format, quantize=8, data="drawn", imgsz=[64, 96], head=head)
    seen = AutoBackend(made)(images[:1])
    expected = model.model.eval()(images[:1])
    seen = seen if isinstance(seen, list) else [seen]
    expected = [expected[0]] if not isinstance(expected[0], tuple) else list(expected[0])
    assert [tuple(y.shape) for y in seen] == [tuple(y.shape) for y in expected]
    for one, other in zip(seen, expected, strict=True):
        noise, signal = one - other.detach(), other.detach() - other.detach().mean()
        assert noise.abs().max() < 0.02 or 10 * np.log10(signal.square().mean() / noise.square().mean()) > 15
