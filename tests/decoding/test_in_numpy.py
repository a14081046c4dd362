import numpy as np
import torch

from yolo_edgequant.decoding import in_numpy, in_torch


def test_cells_lie_row_by_row_and_level_by_level():
    centres, strides = in_numpy.cells(np.array([0, 1, 7, 8, 9]), [16, 32], (32, 64))
    assert centres.tolist() == [[8, 8], [24, 8], [56, 24], [16, 16], [48, 16]]
    assert strides.ravel().tolist() == [16, 16, 16, 32, 32]


def test_boxes_are_turned_as_torch_turns_them():
    size, strides = (64, 96), [8, 16, 32]
    grid = in_torch.Grid.of(size, strides)
    random = torch.Generator().manual_seed(0)
    boxes = torch.rand(1, 4, grid.anchors.shape[2], generator=random)
    angle = torch.rand(1, 1, grid.anchors.shape[2], generator=random) * 3
    pixels = torch.tensor([96.0, 64.0, 96.0, 64.0]).view(1, 4, 1)
    expected = (in_torch.turned(boxes, angle, grid) * pixels)[0].T.numpy()
    centres, _ = in_numpy.cells(np.arange(grid.anchors.shape[2]), strides, size)
    turned = in_numpy.turned((boxes * pixels)[0].T.numpy(), angle[0].T.numpy(), centres)
    np.testing.assert_allclose(turned, expected, atol=1e-3)
    assert np.abs(turned - (boxes * pixels)[0].T.numpy()).max() > 1, "it moved"
