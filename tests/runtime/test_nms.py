import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from ultralytics.utils.metrics import batch_probiou

from yolo_edgequant.runtime.nms import _gaussian_overlap, nms, rotated_nms


@given(st.integers(0, 2**32 - 1), st.integers(1, 1300), st.floats(0.1, 0.9), st.booleans())
@settings(max_examples=40, deadline=None)
def test_the_same_boxes_as_torchvision(seed, count, iou, agnostic):
    random = np.random.default_rng(seed)
    corner = random.uniform(0, 200, (count, 2))
    boxes = np.concatenate((corner, corner + random.uniform(1, 80, (count, 2))), 1).astype(np.float32)
    scores = (random.integers(1, 60, count) / 60).astype(np.float32)  # many are equal, as those of 8 bits
    classes = random.integers(0, 3, count)
    apart = torch.from_numpy(boxes) + (0 if agnostic else torch.from_numpy(classes)[:, None] * 7680)
    expected = torchvision.ops.nms(apart.float(), torch.from_numpy(scores), iou)
    assert nms(boxes, scores, classes, iou, 10**6, agnostic).tolist() == expected.tolist()
    assert nms(boxes, scores, classes, iou, 7, agnostic).tolist() == expected[:7].tolist()


@pytest.mark.parametrize("count", [0, 1, 700])
def test_rotated_boxes_go_when_any_better_one_overlaps(count):
    random = np.random.default_rng(count)
    sizes = random.uniform(5, 60, (count, 2))
    rotated = np.concatenate((random.uniform(0, 150, (count, 2)), sizes, random.uniform(-1, 2, (count, 1))), 1)
    rotated = rotated.astype(np.float32)
    scores, classes = random.permutation(count).astype(np.float32) / max(count, 1), random.integers(0, 3, count)
    order = np.argsort(-scores)
    boxes = torch.from_numpy(rotated[order])
    boxes[:, :2] += torch.from_numpy(classes[order])[:, None] * 7680
    overlap = batch_probiou(boxes, boxes).triu(1)
    expected = order[((overlap > 0.4).sum(0) == 0).numpy()]
    assert rotated_nms(rotated, scores, classes, 0.4, 10**6, False).tolist() == expected.tolist()
    np.testing.assert_allclose(
        _gaussian_overlap(rotated, rotated), batch_probiou(*[torch.from_numpy(rotated)] * 2), atol=2e-3
    )
