import pytest
import torch
from ultralytics import YOLO

from yolo_edgequant.errors import UnsupportedModelError
from yolo_edgequant.heads import decode, raw
from yolo_edgequant.upstream.heads import detach_head, fold_texts, keep_all_cells, normalise_head, one_to_one

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


@pytest.mark.parametrize(("size", "cells_first"), [((64, 64), False), ((96, 160), True)])
@pytest.mark.parametrize("name", HEADS)
def test_decoded_raw_outputs_equal_the_head(name, size, cells_first):
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1))
    model = lively(name, image)
    head = model.model[-1]
    before = model(image)
    fold_texts(model)
    normalise_head(head, size)
    expected = model(image)
    scores = [(y[0] if isinstance(y, tuple) else y)[:, 4 : 4 + head.nc] for y in (before, expected)]
    torch.testing.assert_close(*scores, atol=1e-4, rtol=1e-3)
    facts = detach_head(head, cells_first)
    outputs = model(image)
    assert len(outputs) == len(facts["outputs"])
    parts = {}
    for values, output in zip(outputs, facts["outputs"], strict=True):
        if output["name"] == "prototypes":
            torch.testing.assert_close(values, expected[1])
            continue
        cells = (size[0] // output["stride"]) * (size[1] // output["stride"])
        assert values.shape[1 if cells_first else 2] == cells
        parts.setdefault(output["name"], []).append(values.transpose(1, 2) if cells_first else values)
    made = raw.detections({k: torch.cat(v, 2) for k, v in parts.items()}, decode.Grid.of(size, facts["strides"]), facts)
    expected = expected[0] if isinstance(expected, tuple) else expected
    torch.testing.assert_close(made, expected, atol=1e-4, rtol=1e-4)
    assert expected[:, :4].std() > 0.05


def test_distances_are_the_expectation_of_the_bins():
    logits = torch.full((1, 64, 1), -30.0)
    for side, bin_ in enumerate((0, 3, 15, 7)):
        logits[0, side * 16 + bin_] = 30
    assert decode.distances(logits, 16)[0, :, 0].tolist() == pytest.approx([0, 3, 15, 7])
    assert torch.equal(decode.distances(logits[:, :4], 1), logits[:, :4])


@pytest.mark.parametrize(("name", "what"), [("yolov8s-world", "original YOLO-World")])
def test_heads_whose_scores_are_no_convolution_are_refused(name, what):
    head = YOLO(f"{name}.yaml").model.model[-1]
    with pytest.raises(UnsupportedModelError, match=what):
        detach_head(head, True)


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("name", ["yolo26n", "yolov10n", "yolo26n-seg", "yolo26n-pose", "yolo26n-obb"])
def test_the_hosts_choice_equals_the_heads(name, agnostic):
    size = (96, 160)
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1))
    model = one_to_one(lively(name, image, end2end=True))
    model.end2end = False  # as upstream does for INT8
    head = model.model[-1]
    assert head.end2end
    head.agnostic_nms, head.max_det = agnostic, 20
    for level in head.one2one["cls_head"]:
        level[-1].weight *= 0.05  # scores that differ, far from 1
    normalise_head(head, size)
    first = lambda y: y[0] if isinstance(y, tuple) else y  # noqa: E731
    expected = first(model(image))
    keep_all_cells(head)
    cells = first(model(image))
    assert cells.shape[2] == 12 * 20 + 6 * 10 + 3 * 5
    made = raw.top_k(cells, head.nc, 20, agnostic)
    torch.testing.assert_close(made[..., 4], expected[..., 4])
    scores = made[0, :, 4]
    alone = (scores[:, None] - scores).abs().sort(dim=1).values[:, 1] > 2e-6  # of equal scores any may come first
    alone[-1] = False  # its equal may have been left out
    assert alone.sum() > 5
    torch.testing.assert_close(made[:, alone], expected[:, alone], atol=1e-4, rtol=1e-4)
    assert len(set(made[0, :, 5].tolist())) > 1
