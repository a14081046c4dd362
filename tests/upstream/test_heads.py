import pytest
import torch
from ultralytics import YOLO

from yolo_edgequant.contract import TopK
from yolo_edgequant.decoding import in_torch, raw
from yolo_edgequant.decoding.in_torch import Grid, ToPixels, turned
from yolo_edgequant.demo.train import WEIGHTS
from yolo_edgequant.errors import UnsupportedModelError
from yolo_edgequant.options import Outputs
from yolo_edgequant.upstream.heads import (
    decode_in_unit_square,
    dfl_as_sum,
    fold_texts,
    output_raw,
    skip_top_k,
)

pytestmark = pytest.mark.export


@pytest.fixture(params=["yolov8n", "yolo26n", "yolov8n-pose", "yolo26n-pose", "yolov8n-obb", "yolo26n-obb"])
def model(request):
    torch.manual_seed(0)
    detector = YOLO(f"{request.param}.yaml").model.eval().requires_grad_(False)
    for weights in detector.model[-1].parameters():
        if weights.ndim == 4 and weights.shape[0] > 1:
            weights += torch.randn_like(weights) * 0.1  # random heads give all cells the same box otherwise
    detector.model[-1].export = True
    return detector


@pytest.mark.parametrize("size", [(64, 64), (96, 160)])
def test_heads_in_the_unit_square_equal_upstreams_in_pixels(model, size):
    head = model.model[-1]
    head.shape = None
    image = torch.rand(1, 3, *size)
    expected = model(image)
    decode_in_unit_square(head, size)
    normalised = model(image)
    assert normalised[:, :4].abs().max() < 8  # shares of the image, not pixels
    pixels = ToPixels(model, size, head.nc, getattr(head, "kpt_shape", None))(image)
    assert expected[:, :4].std() > 5
    torch.testing.assert_close(pixels, expected, atol=1e-3, rtol=1e-5)


def test_only_the_instance_changes(model):
    head = model.model[-1]
    decode_in_unit_square(head, (64, 64))
    assert "_get_decode_boxes" in vars(head)
    assert type(head)._get_decode_boxes.__module__.startswith("ultralytics")


@pytest.mark.parametrize("weights", [WEIGHTS, WEIGHTS.parents[2] / "tests/weights/shapes26.pt"])
def test_the_expectation_as_a_sum_is_that_of_the_convolution(weights):
    model = YOLO(weights).model.float().eval()
    image = torch.rand(1, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(image)[0]
        dfl_as_sum(model.model[-1])
        assert torch.allclose(model(image)[0], expected, atol=1e-3)


def test_boxes_that_the_reader_turns_are_those_of_the_head():
    image = torch.rand(1, 3, 96, 160, generator=torch.Generator().manual_seed(1))
    model = lively("yolov8n-obb", image)
    head = model.model[-1]
    decode_in_unit_square(head, (96, 160))
    expected = model(image)
    decode_in_unit_square(head, (96, 160), turn=False)
    unturned = model(image)
    assert (unturned - expected)[:, :2].abs().max() > 1e-3, "something is left to turn"
    boxes = turned(unturned[:, :4], unturned[:, -1:], Grid.of((96, 160), [int(s) for s in head.stride]))
    torch.testing.assert_close(boxes, expected[:, :4], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(unturned[:, 4:], expected[:, 4:])


HEADS = [
    "yolov8n",
    "yolo26n",
    "yolov10n",
    "yolov8n-seg",
    "yolo26n-seg",
    "yolov8n-pose",
    "yolo26n-pose",
    "yolov8n-obb",
    "yolo26n-obb",
    "yolov8s-worldv2",
    "yoloe-11s",
    "yoloe-11s-seg",
    "yoloe-26n-seg",
]


def lively(name, image, end2end=False):
    """A model with random weights whose outputs vary, in the state in which an export finds it."""
    torch.manual_seed(0)
    model = YOLO(f"{name}.yaml").model.eval().requires_grad_(False)
    model.end2end = end2end
    head = model.model[-1]
    for weights in head.parameters():
        if weights.ndim == 4 and weights.shape[0] > 1:
            weights += torch.randn_like(weights) * 0.1
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    with torch.no_grad():
        model(image)  # statistics, so that activations vary
    for norm in norms:
        norm.eval()
    head.export = True
    model.fuse(verbose=False)
    if "yoloe" in name:
        model.set_classes([f"class{i}" for i in range(5)], torch.nn.functional.normalize(torch.randn(1, 5, 512), dim=2))
        head.fuse(model.pe)
    return model


@pytest.mark.parametrize(
    ("size", "cells_first", "arrangement"),
    [
        ((64, 64), False, Outputs.LEVELS),
        ((96, 160), True, Outputs.LEVELS),
        ((96, 160), False, Outputs.MERGED),
        ((64, 64), True, Outputs.MERGED),
        ((96, 160), True, Outputs.GRID),
    ],
)
@pytest.mark.parametrize("name", HEADS)
def test_decoded_raw_outputs_equal_the_head(name, size, cells_first, arrangement):
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1))
    model = lively(name, image)
    head = model.model[-1]
    before = model(image)
    fold_texts(model)
    decode_in_unit_square(head, size)
    expected = model(image)
    scores = [(y[0] if isinstance(y, tuple) else y)[:, 4 : 4 + head.nc] for y in (before, expected)]
    torch.testing.assert_close(*scores, atol=1e-4, rtol=1e-3)
    described, how = output_raw(head, arrangement, cells_first)
    assert (how.arrangement, how.cells_first) == (arrangement, cells_first)
    outputs = model(image)
    assert len(outputs) == len(described)
    strides = [int(stride) for stride in head.stride]
    parts = {}
    for values, output in zip(outputs, described, strict=True):
        if output.name == "prototypes":
            torch.testing.assert_close(values, expected[1])
            continue
        merged = arrangement == Outputs.MERGED
        assert (output.stride is None) == merged
        grids = [(size[0] // s, size[1] // s) for s in (strides if merged else [output.stride])]
        if arrangement == Outputs.GRID:  # NCHW in torch, whatever it is in the file
            assert values.shape[2:] == grids[0]
            values = values.flatten(2)
        else:
            assert values.shape[1 if cells_first else 2] == sum(rows * columns for rows, columns in grids)
            values = values.transpose(1, 2) if cells_first else values
        parts.setdefault(output.name, []).append(values)
    assert all(len(levels) == (1 if merged else len(strides)) for levels in parts.values())
    joined = {name: torch.cat(levels, 2) for name, levels in parts.items()}
    grid = in_torch.Grid.of(size, strides)
    shape = tuple(head.kpt_shape) if "kpts" in parts else None
    decoded = raw.detections(joined, grid, how, shape)
    expected = expected[0] if isinstance(expected, tuple) else expected
    torch.testing.assert_close(decoded, expected, atol=1e-4, rtol=1e-4)
    assert expected[:, :4].std() > 0.05


@pytest.mark.parametrize(("name", "what"), [("yolov8s-world", "original YOLO-World")])
def test_heads_whose_scores_are_no_convolution_are_refused(name, what):
    head = YOLO(f"{name}.yaml").model.model[-1]
    with pytest.raises(UnsupportedModelError, match=what):
        output_raw(head, Outputs.LEVELS, True)


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("name", ["yolo26n", "yolov10n", "yolo26n-seg", "yolo26n-pose", "yolo26n-obb"])
def test_the_hosts_choice_equals_the_heads(name, agnostic):
    size = (96, 160)
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1))
    model = lively(name, image, end2end=True)
    head = model.model[-1]
    assert head.end2end
    head.agnostic_nms, head.max_det = agnostic, 20
    for level in head.one2one["cls_head"]:
        level[-1].weight *= 0.05  # scores that differ, far from 1
    decode_in_unit_square(head, size)
    first = lambda y: y[0] if isinstance(y, tuple) else y  # noqa: E731
    expected = first(model(image))
    skip_top_k(head)
    cells = first(model(image))
    assert cells.shape[2] == 12 * 20 + 6 * 10 + 3 * 5
    best = raw.top_k(cells, head.nc, TopK(20, agnostic))
    torch.testing.assert_close(best[..., 4], expected[..., 4])
    scores = best[0, :, 4]
    alone = (scores[:, None] - scores).abs().sort(dim=1).values[:, 1] > 2e-6  # of equal scores any may come first
    alone[-1] = False  # its equal may have been left out
    assert alone.sum() > 5
    torch.testing.assert_close(best[:, alone], expected[:, alone], atol=1e-4, rtol=1e-4)
    assert len(set(best[0, :, 5].tolist())) > 1
