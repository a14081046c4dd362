"""Decoding of boxes and keypoints in normalised units.

Upstream decodes in grid cells and multiplies by the stride at the end, so the last tensors hold pixels (0 to 640)
next to scores (0 to 1), which one 8-bit scale cannot serve. Here anchors and strides are divided by the image's width
and height before the arithmetic, so that every intermediate stays near 1.

With distances ``lt`` and ``rb`` from an anchor ``a`` to the box's corners, its centre is ``a + (rb - lt) / 2`` and its
size ``lt + rb``. This equals the mean and the difference of the corners (upstream's ``dist2bbox``) but rounds half as
often in integer arithmetic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Grid:
    """Anchors and strides of a fixed input size, in normalised units.

    All products of constants are taken here, outside of the model, so that a converter sees none of them.

    Attributes:
        anchors: (1, 2, A) float32, x and y of each cell's centre as a share of width and height, 0 to 1.
        strides: (1, 2, A) float32, width and height of a cell as a share of the image's.
        sides: (1, 4, A) float32, `strides` for each side of a box: left, top, right, bottom.
        half_sides: (1, 4, A) float32, half of `sides`.
        longer: (1, 1, A) float32, the side of a cell as a share of the image's longer side.
        size: (height, width) of the input in pixels.
        axis: of x and y, and of what is computed with them: 1, or 2 if the cells come first, see :meth:`by_cell`.
    """

    anchors: torch.Tensor
    strides: torch.Tensor
    sides: torch.Tensor
    half_sides: torch.Tensor
    longer: torch.Tensor
    size: tuple[int, int]
    axis: int = 1

    @classmethod
    def of(cls, size: tuple[int, int], strides: list[int], device: torch.device | None = None) -> Grid:
        """Build the grid that levels of the given strides (pixels) lay over an input of `size` (height, width)."""
        height, width = size
        points, cells = [], []
        for stride in strides:
            rows, columns = height // stride, width // stride
            y, x = torch.meshgrid(
                (torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns, indexing="ij"
            )
            points.append(torch.stack((x, y)).reshape(2, -1))
            cells.append(torch.tensor([[stride / width], [stride / height]]).expand(2, rows * columns))
        anchors, cell = torch.cat(points, 1)[None].to(device), torch.cat(cells, 1)[None].contiguous().to(device)
        sides = cell.repeat(1, 2, 1)
        return cls(anchors, cell, sides, sides / 2, cell[:, :1] * (width / max(size)), (height, width))

    def by_cell(self) -> Grid:
        """The same grid for values with the cells first, (B, A, C): each tensor here is (1, A, C) then."""
        tensors = (self.anchors, self.strides, self.sides, self.half_sides, self.longer)
        return Grid(*(tensor.transpose(1, 2).contiguous() for tensor in tensors), self.size, axis=2)


def distances(raw: torch.Tensor, reg_max: int) -> torch.Tensor:
    """Distances to the sides of a box, in cells, from the outputs of the box convolutions.

    Args:
        raw: (B, 4 * reg_max, A) float32, logits over the distances 0, 1, …, reg_max - 1 (the integral of Distribution
            Focal Loss, https://arxiv.org/abs/2006.04388), or the distances themselves where reg_max is 1.
        reg_max: bins of a distribution.

    Returns:
        (B, 4, A) float32.
    """
    if reg_max == 1:
        return raw
    batch, _, anchors = raw.shape
    shares = raw.view(batch, 4, reg_max, anchors).softmax(2)
    return (shares * torch.arange(reg_max, dtype=raw.dtype, device=raw.device).view(1, 1, -1, 1)).sum(2)


#: What is added to DFL's bins where a convolution takes the expectation. Weights k + 7/8 reach up to 127/8 for 16 bins,
#: so that the steps of 8-bit weights are exactly an eighth and no bin is rounded; k alone has steps of 15/127.
_BIN_OFFSET = 0.875


def distances_by_cell(raw: torch.Tensor, reg_max: int) -> torch.Tensor:
    """:func:`distances` with the cells first, so that a file with NHWC maps has nothing to transpose.

    Args:
        raw: (B, A, 4 * reg_max) float32.
        reg_max: bins of a distribution.

    Returns:
        (B, A, 4) float32.
    """
    if reg_max == 1:
        return raw
    batch, cells, _ = raw.shape
    shares = raw.view(batch, cells, 4, reg_max).softmax(3).permute(0, 3, 1, 2)
    bins = torch.arange(reg_max, dtype=raw.dtype, device=raw.device).view(1, -1, 1, 1) + _BIN_OFFSET
    offset = torch.full((1,), -_BIN_OFFSET, dtype=raw.dtype, device=raw.device)
    return nn.functional.conv2d(shares, bins, offset)[:, 0]


@dataclass(frozen=True)
class LevelBoxes:
    """Normalised boxes of the cells of one level, rounded as seldom as 8-bit files can.

    The expectation of DFL, the stride, and the sum or difference of the distances are all linear, so one convolution
    takes them, whose sums have 32 bits: a size is rounded once, and a centre's offset once before its anchor is added.

    Attributes:
        shape: (rows, columns) of the level.
        reg_max: bins of a distribution.
        anchors: (1, rows * columns, 2), or (1, rows * columns, 4) for corners, float32, what is added to the offsets.
        offsets: kernel (2, 4 * reg_max, 1, 1) and bias (2,) of the centre's offset from the anchor, or with 4 outputs
            of the four sides'.
        sizes: the same of width and height; None for corners.
    """

    shape: tuple[int, int]
    reg_max: int
    anchors: torch.Tensor
    offsets: tuple[torch.Tensor, torch.Tensor]
    sizes: tuple[torch.Tensor, torch.Tensor] | None

    @classmethod
    def of(
        cls, size: tuple[int, int], stride: int, reg_max: int, corners: bool, device: torch.device | None = None
    ) -> LevelBoxes:
        """For an input of `size` (height, width) and a level's stride, in pixels; see :func:`boxes` for `corners`."""
        grid = Grid.of(size, [stride], device).by_cell()
        width, height = grid.strides[0, 0].tolist()
        added = _BIN_OFFSET if reg_max > 1 else 0.0
        bins = torch.arange(reg_max) + added if reg_max > 1 else torch.ones(1)

        def layer(factors: list[list[float]]) -> tuple[torch.Tensor, torch.Tensor]:
            """Kernel and bias; `factors` has a row for each output, by what it takes of left, top, right and bottom."""
            by_side = torch.tensor(factors, dtype=torch.float32)
            kernel = (by_side[:, :, None] * bins).reshape(len(factors), 4 * reg_max, 1, 1)
            return kernel.to(device), (-added * by_side.sum(1)).to(device)

        shape = (size[0] // stride, size[1] // stride)
        if corners:
            sides = [[-width, 0, 0, 0], [0, -height, 0, 0], [0, 0, width, 0], [0, 0, 0, height]]
            return cls(shape, reg_max, torch.cat((grid.anchors, grid.anchors), 2), layer(sides), None)
        offsets = [[-width / 2, 0, width / 2, 0], [0, -height / 2, 0, height / 2]]
        sizes = [[width, 0, width, 0], [0, height, 0, height]]
        return cls(shape, reg_max, grid.anchors, layer(offsets), layer(sizes))

    def __call__(self, raw: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Decode.

        Args:
            raw: (B, rows * columns, 4 * reg_max) float32, as in :func:`distances` with the cells first.

        Returns:
            What :func:`boxes` gives, x values as a share of the width and y values of the height, float32: centres and
            sizes, (B, rows * columns, 2) each, or corners, (B, rows * columns, 4).
        """
        batch, _, channels = raw.shape
        if self.reg_max > 1:
            # a row's sides lie side by side: Vela's softmax for Ethos-U85 is slow on maps with few columns
            raw = raw.reshape(batch, self.shape[0], self.shape[1] * 4, self.reg_max).softmax(3)
        maps = raw.reshape(batch, *self.shape, channels).permute(0, 3, 1, 2)  # NHWC in the file, so nothing is moved

        def by_cell(layer: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
            return nn.functional.conv2d(maps, *layer).permute(0, 2, 3, 1).flatten(1, 2)

        moved = by_cell(self.offsets) + self.anchors
        return (moved,) if self.sizes is None else (moved, by_cell(self.sizes))


def pixel_factors(size: tuple[int, int], classes: int, channels: int, keypoints: tuple[int, int] | None) -> list[int]:
    """What to multiply each channel of normalised detections with to have boxes and keypoints in pixels.

    Args:
        size: (height, width) of the input in pixels.
        classes: nc.
        channels: of the detections, 4 + nc + extra.
        keypoints: (K, D) if the extra channels are keypoints.
    """
    height, width = size
    count, dimension = keypoints or (0, 0)
    factors = [width, height, width, height, *[1] * classes, *[width, height, 1][:dimension] * count]
    return [*factors, *[1] * (channels - len(factors))]


def boxes(distances: torch.Tensor, grid: Grid, corners: bool = False) -> torch.Tensor:
    """Normalised boxes from the distances to their sides.

    Args:
        distances: (B, 4, A) float32, left, top, right, bottom in grid cells.
        grid: the anchors.
        corners: return x1, y1, x2, y2 instead of centre x, centre y, width, height.

    Returns:
        (B, 4, A) float32, x values as a share of the width and y values of the height; (B, A, 4) from a grid
        :meth:`Grid.by_cell` and distances like it.
    """
    axis = grid.axis
    near, far = (distances * grid.sides).chunk(2, axis)
    if corners:
        return torch.cat((grid.anchors - near, grid.anchors + far), axis)
    near_half, far_half = (distances * grid.half_sides).chunk(2, axis)
    return torch.cat((grid.anchors + (far_half - near_half), near + far), axis)


def rotated_boxes(distances: torch.Tensor, angle: torch.Tensor, grid: Grid, polynomial: bool = False) -> torch.Tensor:
    """Normalised rotated boxes.

    The offset of the centre is rotated, which needs one unit for both axes: the longer side of the image. The result is
    then scaled to width and height, so that non-square inputs are right too.

    Args:
        distances: (B, 4, A) float32, left, top, right, bottom in grid cells, in the box's own frame.
        angle: (B, 1, A) float32, radians.
        grid: the anchors.
        polynomial: take sine and cosine by :func:`cosine_and_sine`, for files without either.

    Returns:
        (B, 4, A) float32: centre x, centre y, width, height; x and width as a share of the image's width, y and height
        of its height (as upstream's files hold them), although the box is rotated. (B, A, 4) from a grid
        :meth:`Grid.by_cell` and tensors like it.
    """
    height, width = grid.size
    longer, axis = max(height, width), grid.axis
    to_image = torch.tensor([longer / width, longer / height], device=distances.device)
    to_image = to_image.view(1, 2, 1) if axis == 1 else to_image.view(1, 1, 2)
    near, far = (distances * grid.longer).chunk(2, axis)
    x, y = ((far - near) / 2).chunk(2, axis)
    cosine, sine = cosine_and_sine(angle) if polynomial else (angle.cos(), angle.sin())
    offset = torch.cat((x * cosine - y * sine, x * sine + y * cosine), axis)
    return torch.cat((grid.anchors + offset * to_image, (near + far) * to_image), axis)


def cosine_and_sine(angle: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine of an angle from -pi/4 to 3pi/4 by additions and multiplications, which 8-bit files have.

    Around the middle of that range, with ``u`` from -1 to 1 and ``a = pi/4 + u pi/2``. The polynomials are those of
    Abramowitz and Stegun, 4.3.96 and 4.3.98; they err by less than 0.001.
    """
    u = (angle - math.pi / 4) * (2 / math.pi)
    square, half = u * u, math.pi / 2
    odd = u * (half * (1 + square * (-0.16605 * half**2 + square * (0.00761 * half**4))))
    even = 1 + square * (-0.49670 * half**2 + square * (0.03705 * half**4))
    root = math.sqrt(0.5)
    return (even - odd) * root, (even + odd) * root


def turned(boxes: torch.Tensor, angle: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Normalised rotated boxes from those of :func:`boxes`, which has no sine that 8 bits would have to hold.

    Args:
        boxes: (B, 4, A) float32, centre x, centre y, width, height as shares of the image's.
        angle: (B, 1, A) float32, radians.
        grid: the anchors.

    Returns:
        (B, 4, A) float32, the centres turned around their anchors.
    """
    height, width = grid.size
    sides = torch.tensor([width, height], dtype=boxes.dtype, device=boxes.device).view(1, 2, 1)
    x, y = ((boxes[:, :2] - grid.anchors) * sides).chunk(2, 1)
    cosine, sine = angle.cos(), angle.sin()
    offset = torch.cat((x * cosine - y * sine, x * sine + y * cosine), 1) / sides
    return torch.cat((grid.anchors + offset, boxes[:, 2:]), 1)


def keypoints(raw: torch.Tensor, shape: tuple[int, int], grid: Grid, gain: float, offset: float) -> torch.Tensor:
    """Normalised keypoints.

    Args:
        raw: (B, K * D, A) float32 outputs of the keypoint convolutions.
        shape: (K, D), number of keypoints and 2 (x, y) or 3 (x, y, visibility) values each.
        grid: the anchors.
        gain, offset: a keypoint lies at ``(raw * gain + offset)`` cells from its anchor; (2, -0.5) for Pose, (1, 0)
            for Pose26.

    Returns:
        (B, K * D, A) float32; x and y as a share of width and height, visibility as a probability.
    """
    batch, _, anchors = raw.shape
    values = raw.view(batch, *shape, anchors)
    start = (grid.anchors + offset * grid.strides)[:, None]
    points = values[:, :, :2] * (grid.strides * gain)[:, None] + start
    if shape[1] == 3:
        points = torch.cat((points, values[:, :, 2:].sigmoid()), 2)
    return points.reshape(batch, -1, anchors)


class ToPixels(nn.Module):
    """A normalised detector whose output is in pixels again, by one multiplication at the very end.

    For files whose readers expect pixels: the multiplication stays in float, all before it can be quantized.

    Args:
        model: gives (B, 4 + nc + extra, A) with normalised boxes, alone or as the first of several outputs.
        size: (height, width) of the input in pixels.
        classes: nc.
        keypoints: (K, D) if the extra channels are keypoints.
    """

    def __init__(
        self, model: nn.Module, size: tuple[int, int], classes: int, keypoints: tuple[int, int] | None
    ) -> None:
        super().__init__()
        self.model = model
        self.size, self.classes, self.keypoints = size, classes, keypoints

    def forward(self, image: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Run the model and scale boxes and keypoints."""
        outputs = self.model(image)
        first = outputs[0] if isinstance(outputs, (tuple, list)) else outputs
        factors = pixel_factors(self.size, self.classes, first.shape[1], self.keypoints)
        first = first * torch.tensor(factors, dtype=first.dtype).view(1, -1, 1)
        return (first, *outputs[1:]) if isinstance(outputs, (tuple, list)) else first
