"""YOLOE with fused prompts and YOLO-World v2 with fixed texts, through real files; the weights are random."""

import pytest
import torch
from ultralytics import YOLO
from ultralytics.engine.exporter import Exporter
from ultralytics.nn.autobackend import AutoBackend

from yolo_edgequant.upstream import data

pytestmark = pytest.mark.export
NAMES = ["cat", "dog", "bird"]


@pytest.mark.parametrize(
    ("name", "format", "head"),
    [("yoloe-11n-seg", "tflite", "float"), ("yolov8s-worldv2", "litert", "raw")],
)
def test_files_agree_with_the_checkpoint(tmp_path, monkeypatch, name, format, head):
    torch.manual_seed(0)
    images = torch.rand(6, 3, 64, 96)
    model = YOLO(f"{name}.yaml")
    texts = torch.nn.functional.normalize(torch.randn(1, len(NAMES), 512), dim=2)
    if "world" in name:
        model.model.txt_feats, model.model.model[-1].nc = texts, len(NAMES)
        model.model.names = dict(enumerate(NAMES))
    else:
        model.model.set_classes(NAMES, texts)
    for comparison in model.model.model[-1].cv4:
        comparison.bias.data.fill_(-1.0)  # scores far from 0 that vary
        comparison.logit_scale.data.fill_(0.0)
    norms = [m for m in model.model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    with torch.no_grad():
        model.model.eval()
        for norm in norms:
            norm.train()
        model.model(images)
    model.model.eval()
    model.ckpt_path = model.model.pt_path = str(tmp_path / "model.pt")
    model.model.args = {"data": "", "imgsz": 96}
    monkeypatch.setattr(data, "check", lambda data, splits, task: None)
    loader = torch.utils.data.DataLoader([{"img": (x * 255).to(torch.uint8)} for x in images], batch_size=1)
    monkeypatch.setattr(Exporter, "get_int8_calibration_dataloader", lambda self, prefix="": loader)
    with torch.no_grad():
        expected = model.model(images[:1])
    file = model.export(format=format, quantize=8, data="drawn", imgsz=[64, 96], head=head)
    detections = AutoBackend(file)(images[:1])
    detections = detections[0] if isinstance(detections, list) else detections
    expected = expected[0][0] if isinstance(expected[0], tuple) else expected[0]
    assert detections.shape == expected.shape
    noise, signal = detections[:, :4] - expected[:, :4], expected[:, :4] - expected[:, :4].mean(2, keepdim=True)
    snr = 10 * torch.log10(signal.square().mean() / noise.square().mean())
    scores = slice(4, 4 + len(NAMES))
    error, span = (detections - expected)[:, scores].abs().mean(), expected[:, scores].std()
    print(f"{name} {format} {head}: boxes {snr:.1f} dB, scores {error:.4f}, span {span:.4f}")
    assert snr > 15
    assert error < 0.7 * span
