import pytest
import torch
from ultralytics import YOLO

from yolo_edgequant.errors import UnsupportedModelError
from yolo_edgequant.heads import decode, raw
from yolo_edgequant.upstream.heads import detach_head, normalise_head

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
]


def lively(name):
    torch.manual_seed(0)
    model = YOLO(f"{name}.yaml").model.eval().requires_grad_(False)
    model.end2end = False
    for weights in model.model[-1].parameters():
        if weights.ndim == 4 and weights.shape[0] > 1:
            weights += torch.randn_like(weights) * 0.1
    model.model[-1].export = True
    return model.fuse(verbose=False)


@pytest.mark.parametrize("cells_first", [True, False])
@pytest.mark.parametrize("size", [(64, 64), (96, 160)])
@pytest.mark.parametrize("name", HEADS)
def test_decoded_raw_outputs_equal_the_head(name, size, cells_first):
    model = lively(name)
    head = model.model[-1]
    image = torch.rand(1, 3, *size)
    normalise_head(head, size)
    expected = model(image)
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


def test_heads_that_mix_texts_in_are_refused():
    head = YOLO("yolov8s-worldv2.yaml").model.model[-1]
    with pytest.raises(UnsupportedModelError, match="WorldDetect"):
        detach_head(head, True)
