"""YOLOv8, 11, 12 and 26 with random weights: FP32 and INT8 files agree, at several sizes and numbers of classes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ultralytics import YOLO
from ultralytics.engine.exporter import Exporter
from ultralytics.nn.autobackend import AutoBackend
from ultralytics.nn.tasks import DetectionModel

from yolo_edgequant.demo.dataset import picture
from yolo_edgequant.upstream import data

BOUNDS = json.loads((Path(__file__).parent / "thresholds.json").read_text())["architectures"]

pytestmark = pytest.mark.export


def lively(architecture, classes, images):
    """A random model whose activations and outputs vary over the image, but not so much that noise is all there is."""
    torch.manual_seed(0)
    model = DetectionModel(f"{architecture}.yaml", nc=classes, verbose=False).train()
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # the average over all that it sees

    def widen(layer, inputs, output):
        layer.weight.data *= 0.1 / (output - layer.bias.view(1, -1, 1, 1)).std()

    with torch.no_grad():
        model(images)
        model.eval()
        ends = [branch[-1] for branches in (model.model[-1].cv2, model.model[-1].cv3) for branch in branches]
        hooks = [end.register_forward_hook(widen) for end in ends]
        model(images[:1])
        for hook in hooks:
            hook.remove()
        for branch in model.model[-1].cv3:
            branch[-1].bias.fill_(-2.0)
    return model


@pytest.mark.parametrize(
    ("architecture", "size", "classes", "format", "head"),
    [
        ("yolov8n", (640, 640), 80, "litert", "float"),
        ("yolov8n", (320, 320), 1, "tflite", "int8"),
        ("yolo11n", (480, 640), 80, "litert", "raw"),
        ("yolo11n", (320, 320), 64, "openvino", "float"),
        ("yolo12n", (640, 640), 3, "openvino", "raw"),
        ("yolo12n", (320, 320), 64, "tflite", "float"),
        ("yolo26n", (640, 640), 1, "litert", "float"),
        ("yolo26n", (480, 640), 64, "tflite", "raw"),
    ],
)
def test_int8_agrees_with_fp32(tmp_path, monkeypatch, architecture, size, classes, format, head):
    side = max(size)
    drawn = [picture(side, np.random.default_rng(i))[0][: size[0], : size[1], ::-1].copy() for i in range(8)]
    pixels = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2)
    images = pixels.float() / 255
    model = lively(architecture, classes, images[:, :, :256, :256])
    checkpoint = YOLO(f"{architecture}.yaml", verbose=False)
    checkpoint.model, checkpoint.model.names = model, {i: f"class{i}" for i in range(classes)}
    model.task, model.args = "detect", {"imgsz": side, "data": ""}
    model.pt_path = str(tmp_path / "model.pt")
    loader = torch.utils.data.DataLoader([{"img": image} for image in pixels], batch_size=1)
    monkeypatch.setattr(data, "check", lambda data, splits, task: None)
    monkeypatch.setattr(Exporter, "get_int8_calibration_dataloader", lambda self, prefix="": loader)
    file = checkpoint.export(format=format, quantize=8, data="drawn", imgsz=list(size), head=head, verify=False)
    detections = AutoBackend(file)(images[:1])
    with torch.no_grad():
        expected = model(images[:1])[0]
    assert detections.shape == expected.shape == (1, 4 + classes, expected.shape[2])
    noise = (detections - expected)[:, :4] / side
    signal = expected[:, :4] / side
    snr = 10 * torch.log10((signal - signal.mean(2, keepdim=True)).square().mean() / noise.square().mean())
    error = (detections - expected)[:, 4:].abs().mean()
    span = expected[:, 4:].std()
    print(f"{architecture} {size} nc={classes} {format}: boxes {snr:.1f} dB, scores {error:.4f}, span {span:.3f}")
    assert span > 0.01, "the scores vary, so there is something to agree on"
    assert error < 0.7 * span
    assert snr > BOUNDS["box_snr_db"]
    assert error < BOUNDS["score_error"]
