import numpy as np
import pytest
import torch

from yolo_edgequant.decoding import in_torch
from yolo_edgequant.int8 import LARGEST_WEIGHT, round_weights

SIZES = [(64, 64), (96, 160), (160, 32)]
STRIDES = [8, 16, 32]


@pytest.mark.parametrize("size", SIZES)
def test_grid_covers_the_image(size):
    grid = in_torch.Grid.of(size, STRIDES)
    cells = sum((size[0] // s) * (size[1] // s) for s in STRIDES)
    assert grid.anchors.shape == grid.strides.shape == (1, 2, cells)
    assert torch.allclose(grid.anchors[0, :, 0], torch.tensor([4 / size[1], 4 / size[0]]))
    assert torch.allclose(grid.anchors[0, :, -1], torch.tensor([1 - 16 / size[1], 1 - 16 / size[0]]))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("corners", [False, True])
def test_boxes_of_known_sides(size, corners):
    height, width = size
    grid = in_torch.Grid.of(size, [32])
    distances = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1).expand(1, 4, grid.anchors.shape[2])
    box = in_torch.boxes(distances, grid, corners)[0, :, 0] * torch.tensor([width, height, width, height])
    x1, y1, x2, y2 = 16 - 32, 16 - 64, 16 + 96, 16 + 128
    expected = [x1, y1, x2, y2] if corners else [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
    assert torch.allclose(box, torch.tensor(expected, dtype=torch.float32), atol=1e-4)


@pytest.mark.parametrize("size", SIZES)
def test_boxes_are_near_one_in_every_intermediate(size):
    grid = in_torch.Grid.of(size, STRIDES)
    assert grid.anchors.max() <= 1
    assert grid.strides.max() <= 1


def test_a_box_turned_by_a_right_angle_moves_its_centre_along_the_other_axis():
    grid = in_torch.Grid.of((96, 160), [32])
    distances = torch.tensor([1.0, 1.0, 3.0, 1.0]).view(1, 4, 1).expand(1, 4, grid.anchors.shape[2])
    angle = torch.full((1, 1, grid.anchors.shape[2]), torch.pi / 2)
    x, y, w, h = (in_torch.rotated_boxes(distances, angle, grid)[0, :, 0] * torch.tensor([160, 96, 160, 96])).tolist()
    assert (x, y) == pytest.approx((16, 16 + 32), abs=1e-3)  # one cell along the box's own x axis, which points down
    assert (w, h) == pytest.approx((4 * 32, 2 * 32), abs=1e-3)


@pytest.mark.parametrize(("gain", "offset"), [(2.0, -0.5), (1.0, 0.0)])
@pytest.mark.parametrize("shape", [(5, 3), (4, 2)])
def test_keypoints_in_cells_from_the_anchor(gain, offset, shape):
    grid = in_torch.Grid.of((64, 128), [16])
    raw = torch.zeros(1, shape[0] * shape[1], grid.anchors.shape[2])
    raw[:, 0] = 1.5
    points = in_torch.keypoints(raw, shape, grid, gain, offset)[0, :, 0]
    assert points[0] * 128 == pytest.approx(8 + 16 * (1.5 * gain + offset))
    assert points[1] * 64 == pytest.approx(8 + 16 * offset)
    if shape[1] == 3:
        assert points[2] == 0.5


@pytest.mark.parametrize("size", SIZES)
def test_boxes_that_a_reader_turns_are_the_rotated_ones(size):
    grid = in_torch.Grid.of(size, STRIDES)
    random = torch.Generator().manual_seed(0)
    distances = torch.rand(2, 4, grid.anchors.shape[2], generator=random) * 5
    angle = torch.rand(2, 1, grid.anchors.shape[2], generator=random) * 3
    turned = in_torch.turned(in_torch.boxes(distances, grid), angle, grid)
    torch.testing.assert_close(turned, in_torch.rotated_boxes(distances, angle, grid), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_a_grid_by_cell_has_the_cells_first(size):
    grid = in_torch.Grid.of(size, STRIDES)
    by_cell = grid.by_cell()
    for name in ("anchors", "strides", "sides", "half_sides", "longer"):
        values = getattr(by_cell, name)
        assert torch.equal(values, getattr(grid, name).transpose(1, 2)), name
        assert values.is_contiguous(), "a constant of a file"
    assert (grid.axis, by_cell.axis, by_cell.size) == (1, 2, size)


@pytest.mark.parametrize("size", SIZES)
def test_boxes_by_cell_are_the_same(size):
    grid = in_torch.Grid.of(size, STRIDES)
    random = torch.Generator().manual_seed(0)
    distances = torch.rand(2, 4, grid.anchors.shape[2], generator=random) * 5
    angle = torch.rand(2, 1, grid.anchors.shape[2], generator=random) * 3
    turned = distances.transpose(1, 2), angle.transpose(1, 2)
    for corners in (False, True):
        boxes = in_torch.boxes(turned[0], grid.by_cell(), corners)
        assert torch.equal(boxes.transpose(1, 2), in_torch.boxes(distances, grid, corners))
    for polynomial in (False, True):
        boxes = in_torch.rotated_boxes(*turned, grid.by_cell(), polynomial)
        torch.testing.assert_close(
            boxes.transpose(1, 2), in_torch.rotated_boxes(distances, angle, grid, polynomial), atol=1e-6, rtol=0
        )


def test_cosine_and_sine_of_a_heads_angles_err_by_less_than_a_thousandth():
    angle = torch.linspace(-torch.pi / 4, 3 * torch.pi / 4, 10_001, dtype=torch.float64)
    cosine, sine = in_torch.cosine_and_sine(angle)
    assert (cosine - angle.cos()).abs().max() < 0.001
    assert (sine - angle.sin()).abs().max() < 0.001


@pytest.mark.parametrize("reg_max", [16, 8, 1])
def test_distances_by_cell_are_the_same(reg_max):
    raw = torch.randn(2, 4 * reg_max, 21, generator=torch.Generator().manual_seed(0)) * 3
    by_cell = in_torch.distances_by_cell(raw.transpose(1, 2).contiguous(), reg_max)
    assert by_cell.shape == (2, 21, 4)
    torch.testing.assert_close(by_cell.transpose(1, 2), in_torch.distances(raw, reg_max), atol=1e-5, rtol=0)


def test_bins_of_distances_by_cell_are_exact_in_eight_bits(monkeypatch):
    """As weights, that is: 127 steps of an eighth. Those of k alone would be rounded."""
    weights = []
    conv2d = torch.nn.functional.conv2d

    def spy(values, kernel, bias):
        weights.append((kernel.double().numpy(), float(bias)))
        return conv2d(values, kernel, bias)

    monkeypatch.setattr(torch.nn.functional, "conv2d", spy)
    in_torch.distances_by_cell(torch.zeros(1, 3, 64), 16)
    ((bins, offset),) = weights
    assert bins.shape == (1, 16, 1, 1)
    assert bins.ravel().tolist() == [k + 0.875 for k in range(16)]
    assert offset == -0.875
    np.testing.assert_array_equal(np.round(LARGEST_WEIGHT * bins / bins.max()) / 8, bins)
    np.testing.assert_allclose(round_weights(bins, (1, 2, 3)), bins, rtol=1e-15)
    plain = np.arange(16.0).reshape(1, 16, 1, 1)
    assert np.abs(round_weights(plain, (1, 2, 3)) - plain).max() > 0.05


def test_distances_are_the_expectation_of_the_bins():
    logits = torch.full((1, 64, 1), -30.0)
    for side, bin_ in enumerate((0, 3, 15, 7)):
        logits[0, side * 16 + bin_] = 30
    assert in_torch.distances(logits, 16)[0, :, 0].tolist() == pytest.approx([0, 3, 15, 7])
    assert torch.equal(in_torch.distances(logits[:, :4], 1), logits[:, :4])


@pytest.mark.parametrize("alone", [True, False])
def test_pixels_are_one_multiplication_behind_the_model(alone):
    class Shares(torch.nn.Module):
        def forward(self, image):
            ones = torch.ones(1, 4 + 2 + 6, 7)
            return ones if alone else (ones, image)

    image = torch.zeros(1, 3, 64, 96)
    outputs = in_torch.ToPixels(Shares(), (64, 96), 2, (2, 3))(image)
    first = outputs if alone else outputs[0]
    assert first[0, :, 0].tolist() == [96, 64, 96, 64, 1, 1, 96, 64, 1, 96, 64, 1]
    assert alone or outputs[1] is image


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("reg_max", [16, 1])
@pytest.mark.parametrize("corners", [False, True])
def test_boxes_level_by_level_are_those_of_all_cells(size, reg_max, corners):
    random = torch.Generator().manual_seed(0)
    shapes = [(size[0] // stride, size[1] // stride) for stride in STRIDES]
    raws = [4 * torch.rand(2, rows * columns, 4 * reg_max, generator=random) for rows, columns in shapes]
    distances = in_torch.distances(torch.cat(raws, 1).transpose(1, 2), reg_max)
    expected = in_torch.boxes(distances, in_torch.Grid.of(size, STRIDES), corners).transpose(1, 2)
    levels = [in_torch.LevelBoxes.of(size, stride, reg_max, corners) for stride in STRIDES]
    decoded = [level(raw) for level, raw in zip(levels, raws, strict=True)]
    assert {len(parts) for parts in decoded} == {1 if corners else 2}
    boxes = torch.cat([torch.cat(parts, 2) for parts in decoded], 1)
    assert expected.std() > 0.1
    torch.testing.assert_close(boxes, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("shared", [(1, 2, 3), (0, 1, 2, 3)], ids=["channel", "tensor"])
def test_eight_bits_hold_the_weights_of_a_level(corners, shared):
    level = in_torch.LevelBoxes.of((640, 640), 8, 16, corners)
    for kernel, _ in filter(None, (level.offsets, level.sizes)):
        weights = kernel.double().numpy()
        np.testing.assert_allclose(round_weights(weights, shared), weights, rtol=1e-6)
