"""Ultralytics reads our files and its own; without us it reads what it can, and stops at the rest."""

import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from ultralytics import YOLO
from ultralytics.engine.exporter import Exporter
from ultralytics.nn.autobackend import AutoBackend
from ultralytics.nn.backends.base import BaseBackend
from ultralytics.utils import YAML

import yolo_edgequant
from yolo_edgequant.contract import Contract, Output, Raw, TopK, read
from yolo_edgequant.demo.dataset import picture
from yolo_edgequant.demo.train import HERE, WEIGHTS
from yolo_edgequant.errors import ContractError
from yolo_edgequant.patches import backends, preflight
from yolo_edgequant.processes import environment

NAMES = {0: "circle", 1: "square", 2: "triangle", 3: "star"}
UPSTREAM = {"task": "detect", "names": NAMES, "stride": 32, "end2end": False, "args": {}, "imgsz": [64, 96]}


def contract(**more):
    values = {
        "task": "detect",
        "names": NAMES,
        "stride": 32,
        "end2end": False,
        "nms": False,
        "kpt_shape": None,
        "head": "int8",
        "granularity": "channel",
        "ranges": "activation",
        "corrections": "all",
        "io": "int8",
        "channels_last": True,
        "outputs": (Output("detections"),),
        "normalised": True,
    }
    return Contract(**values | more)


RAW = {
    "head": "raw",
    "normalised": False,
    "strides": (32,),
    "outputs": (Output("boxes", 32), Output("scores", 32)),
    "raw": Raw(cells_first=False, reg_max=1),
}


class Backend(BaseBackend):
    """One that is given metadata, and no file."""

    def __init__(self):
        self.dynamic = False

    def load_model(self, weight):
        raise NotImplementedError

    def forward(self, im):
        raise NotImplementedError


def test_a_backend_has_the_contract_of_a_file_of_ours_and_upstreams_attributes():
    backend = Backend()
    backend.apply_metadata(contract(**RAW).to_metadata(UPSTREAM))
    assert backends.contract_of(backend).raw == RAW["raw"]
    assert (backend.stride, backend.task, backend.names) == (32, "detect", NAMES)


def test_a_backend_of_another_file_has_none():
    backend = Backend()
    backend.apply_metadata(UPSTREAM)
    assert backends.contract_of(backend) is None
    assert backend.stride == 32
    backend.apply_metadata(None)


def test_a_damaged_contract_ends_in_one_line():
    metadata = contract().to_metadata(UPSTREAM)
    metadata["edgequant"]["head"] = "flaot"
    with pytest.raises(ContractError, match=r"key 'edgequant.head' is 'flaot'") as raised:
        Backend().apply_metadata(metadata)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("more", "readable"),
    [
        ({}, True),
        ({"io": "float", "head": "float"}, True),
        ({"io": "uint8"}, False),
        (RAW, False),
        (
            {"unturned": True, "task": "obb", "strides": (32,), "outputs": (Output("detections"), Output("angle"))},
            False,
        ),
        ({"top_k": TopK(300, False), "end2end": True}, False),
    ],
    ids=["int8", "float", "uint8", "raw", "obb", "nms-free"],
)
def test_upstream_stops_at_what_it_would_read_wrongly(more, readable):
    metadata = contract(**more).to_metadata(UPSTREAM)
    yolo_edgequant.disable()
    backend = Backend()
    if readable:
        backend.apply_metadata(metadata)
        assert backend.stride == 32
        return
    with pytest.raises(ValueError, match="this file is read with 'import yolo_edgequant'"):
        backend.apply_metadata(metadata)


SIZE = (64, 96)  # cells of 32 pixels: 2 x 3


def test_normalised_boxes_become_pixels():
    values = np.full((1, 8, 6), 0.5, np.float32)
    (detections,) = backends.finish(contract(), [values], SIZE)
    assert detections[0, :, 0].tolist() == [48, 32, 48, 32, 0.5, 0.5, 0.5, 0.5]


def test_pixels_stay():
    values = np.full((1, 8, 6), 20, np.float32)
    (detections,) = backends.finish(contract(normalised=False), [values], SIZE)
    assert (detections == 20).all()


def test_a_task_without_boxes_passes():
    values = [np.ones((1, 4), np.float32)]
    assert backends.finish(contract(task="classify", outputs=(), normalised=False), values, SIZE) == values


def test_raw_outputs_are_decoded():
    """Every cell's box reaches half a cell to each side, so it is the cell."""
    boxes, scores = np.full((1, 4, 6), 0.5, np.float32), np.zeros((1, 4, 6), np.float32)
    (detections,) = backends.finish(contract(**RAW), [boxes, scores], SIZE)
    assert detections[0, :, 4].tolist() == [48, 48, 32, 32, 0.5, 0.5, 0.5, 0.5]
    cells_first = RAW | {"raw": Raw(cells_first=True, reg_max=1)}
    (same,) = backends.finish(contract(**cells_first), [v.transpose(0, 2, 1) for v in (boxes, scores)], SIZE)
    assert torch.equal(same, detections)


@pytest.mark.parametrize("cells_first", [True, False])
@pytest.mark.parametrize("arrangement", ["merged", "grid"])
@pytest.mark.parametrize("extra", [{}, {"kpts": 4, "visibility": 2}, {"mask_coefficient": 5}, {"angle": 1}], ids=str)
def test_merged_raw_outputs_and_maps_are_decoded_as_levels_are(extra, arrangement, cells_first):
    """Maps come as (B, C, rows, columns), whatever they are in the file."""
    grids, random = {16: (4, 6), 32: (2, 3)}, torch.Generator().manual_seed(0)
    outputs, levels, others = [], [], []
    for name, channels in {"boxes": 64, "scores": 4, **extra}.items():
        maps = [torch.randn(1, channels, *grid, generator=random) for grid in grids.values()]
        rows = [values.flatten(2).transpose(1, 2) if cells_first else values.flatten(2) for values in maps]
        outputs += [Output(name, stride) for stride in grids]
        levels += rows
        others += maps if arrangement == "grid" else [torch.cat(rows, 1 if cells_first else 2)]
    pose = {"task": "pose", "kpt_shape": (2, 3)} if "kpts" in extra else {}

    def finished(arrangement, outputs, values):
        raw = Raw(cells_first, 16, (2.0, -0.5) if pose else None, arrangement)
        facts = RAW | pose | {"strides": tuple(grids), "outputs": tuple(outputs), "raw": raw}
        (detections,) = backends.finish(contract(**facts), values, SIZE)
        return detections

    merged = [Output(name) for name in ("boxes", "scores", *extra)]
    expected = finished("levels", outputs, levels)
    assert expected.shape[2] == 30
    assert torch.equal(finished(arrangement, merged if arrangement == "merged" else outputs, others), expected)


def test_outputs_are_joined_by_their_names():
    """Whatever their order in the file; prototypes come last."""
    parts = {
        "prototypes": np.full((1, 2, 16, 24), 3, np.float32),
        "mask_coefficient": np.full((1, 2, 6), 2, np.float32),
        "detections": np.full((1, 8, 6), 0.5, np.float32),
    }
    outputs = tuple(Output(name) for name in parts)
    detections, prototypes = backends.finish(contract(task="segment", outputs=outputs), list(parts.values()), SIZE)
    assert detections.shape == (1, 10, 6)
    assert detections[0, :, 0].tolist() == [48, 32, 48, 32, 0.5, 0.5, 0.5, 0.5, 2, 2]
    assert (prototypes == 3).all()


def test_boxes_that_were_left_unturned_are_turned():
    """A centre to the right of its cell's lies below it after a quarter turn."""
    more = {"task": "obb", "unturned": True, "strides": (32,), "outputs": (Output("angle"), Output("detections"))}
    unturned = np.zeros((1, 8, 6), np.float32)
    unturned[0, :2, 0] = (16 + 24) / 96, 16 / 64  # of the first cell, whose centre is at (16, 16)
    unturned[0, 2:4, 0] = 0.2
    angle = np.full((1, 1, 6), np.pi / 2, np.float32)
    (detections,) = backends.finish(contract(**more), [angle, unturned], SIZE)
    np.testing.assert_allclose(detections[0, :2, 0], [16, 16 + 24], atol=1e-4)
    np.testing.assert_allclose(detections[0, 2:4, 0], [0.2 * 96, 0.2 * 64], atol=1e-4)
    assert detections[0, -1, 0] == pytest.approx(np.pi / 2)


def test_the_best_of_an_nms_free_file_are_chosen():
    values = np.zeros((1, 8, 6), np.float32)
    values[0, 4 + 2, 5], values[0, 4 + 1, 3] = 0.9, 0.8
    chosen = contract(end2end=True, top_k=TopK(2, False), normalised=True)
    (detections,) = backends.finish(chosen, [values], SIZE)
    assert detections.shape == (1, 2, 6)
    assert detections[0, :, 4].tolist() == pytest.approx([0.9, 0.8])
    assert detections[0, :, 5].tolist() == [2, 1]


@pytest.fixture(scope="module")
def stock(tmp_path_factory, shapes_data):
    """A LiteRT INT8 file of Ultralytics' own."""
    model = Path(shutil.copy(WEIGHTS, tmp_path_factory.mktemp("stock")))
    yolo_edgequant.disable()
    file = YOLO(model).export(format="litert", quantize=8, data=shapes_data, split="train", imgsz=160)
    yolo_edgequant.enable()
    return file


@pytest.mark.export
def test_files_of_stock_ultralytics_give_what_they_gave(stock):
    image = torch.rand(1, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    with_patches = AutoBackend(stock)(image)
    yolo_edgequant.disable()
    without = AutoBackend(stock)(image)
    assert torch.equal(with_patches, without)


#: Of the embedded detector; other tasks and NMS-free models are in tests/accuracy/test_tasks.py.
FILES = [
    ("tflite", {}, True),
    ("tflite", {"head": "float"}, True),
    ("litert", {}, True),
    ("openvino", {}, True),
    ("tflite", {"head": "raw"}, False),
    ("litert", {"head": "raw"}, False),
    ("openvino", {"head": "raw"}, False),
    ("tflite", {"io": "uint8"}, False),
    ("tflite", {"head": "float", "io": "uint8"}, False),
]


@pytest.mark.export
@pytest.mark.parametrize(("format", "options", "readable"), FILES, ids=str)
def test_without_us_ultralytics_reads_a_file_rightly_or_not_at_all(
    exported, score, shapes_data, fp32, format, options, readable
):
    file = exported(format, **options)
    assert read(file).is_upstream == readable
    expected = score(file, shapes_data)
    assert expected > 0.75 * fp32
    yolo_edgequant.disable()
    if readable:
        assert score(file, shapes_data) == pytest.approx(expected, abs=0.01)
        return
    for reads in (
        lambda: score(file, shapes_data),
        lambda: YOLO(file, task="detect")(np.zeros((160, 160, 3), np.uint8)),
    ):
        with pytest.raises(Exception, match="yolo_edgequant"):
            reads()


@pytest.mark.export
def test_a_process_that_never_heard_of_us_stops_at_a_raw_file(exported, tmp_path):
    program = """
import sys
from ultralytics import YOLO
YOLO(sys.argv[1], task="detect").predict(sys.argv[2], imgsz=160)
"""
    cv2.imwrite(str(tmp_path / "picture.png"), picture(160, np.random.default_rng(0))[0])
    done = subprocess.run(
        [sys.executable, "-c", program, str(exported("tflite", head="raw")), "picture.png"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "this file is read with 'import yolo_edgequant' before it" in done.stderr.splitlines()[-1]


def agreement(outputs, expected):
    """Signal to noise in dB; of a classifier also the rank correlation of the classes."""
    noise, signal = outputs - expected, expected - expected.mean()
    snr = float(10 * torch.log10(signal.square().mean() / noise.square().mean()))
    if expected.dim() > 2:
        return snr, 1.0
    ranks = torch.stack([values[0].argsort().argsort().float() for values in (outputs, expected)])
    return snr, float(torch.corrcoef(ranks)[0, 1])


def agree(outputs, expected):
    snr, ranks = agreement(outputs, expected)
    return snr > 12 and ranks > 0.9


#: Task to the head that takes the detector's place, its last layer, and how far its results are to spread.
HEADS = {
    "classify": ([-1, 1, "Classify", ["nc"]], lambda head: head.linear, 1.0),
    "semantic": ([[15, 18], 1, "SemanticSegment", ["nc"]], lambda head: head.classifier[-1], 1.0),
    "depth": ([[15, 18, 21], 1, "Depth", [32]], lambda head: head.head[-1], 0.5),
}


def with_head(task, images, folder):
    """The embedded detector's trained features below a new head, whose results vary over the images."""
    torch.manual_seed(0)
    layer, last, spread = HEADS[task]
    plan = YAML.load(HERE / "shapes.yaml")
    plan["head"][-1] = layer
    YAML.save(folder / "model.yaml", plan)
    model = YOLO(folder / "model.yaml", task=task)
    trained = YOLO(WEIGHTS).model.float().state_dict()
    features = {name: values for name, values in trained.items() if not name.startswith("model.22.")}
    model.model.load_state_dict(features, strict=False)
    head = model.model.eval().model[-1]
    for norm in (module for module in head.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        norm.momentum = None  # the mean over all that it sees
        norm.train()

    def widen(layer, inputs, output):
        bias = layer.bias.view(1, -1, *[1] * (output.dim() - 2))
        layer.weight.data *= spread / (output - bias).std()

    with torch.no_grad():
        model.model(images)
        model.model.eval()
        hook = last(head).register_forward_hook(widen)
        model.model(images[:1])
        hook.remove()
    model.ckpt_path = model.model.pt_path = str(folder / "model.pt")
    return model


@pytest.mark.export
@pytest.mark.parametrize(("task", "format"), [("classify", "tflite"), ("semantic", "litert"), ("depth", "litert")])
def test_a_task_without_boxes_gives_outputs_near_the_checkpoints(tmp_path, monkeypatch, task, format):
    drawn = [picture(96, np.random.default_rng(i))[0][:64, :, ::-1].copy() for i in range(8)]
    pixels = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2)
    images = pixels.float() / 255
    model = with_head(task, images, tmp_path)
    loader = torch.utils.data.DataLoader([{"img": image} for image in pixels], batch_size=1)
    monkeypatch.setattr(preflight.data, "check", lambda *_: None)
    monkeypatch.setattr(Exporter, "get_int8_calibration_dataloader", lambda self, prefix="": loader)
    file = model.export(format=format, quantize=8, data="drawn", imgsz=[64, 96])
    outputs = AutoBackend(file)(images[:1])
    model.model.model[-1].export = True
    with torch.no_grad():
        expected = model.model(images[:1])
    expected = expected[0] if isinstance(expected, tuple) else expected
    assert outputs.shape == expected.shape
    print(task, agreement(outputs, expected))
    assert agree(outputs, expected)
    for wrong in (torch.zeros_like(expected), expected.mean().expand(expected.shape), outputs.flip(-1)):
        assert not agree(wrong, expected)
