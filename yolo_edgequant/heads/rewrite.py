"""Give a detection head the normalised arithmetic of :mod:`.decode`, on that one instance."""

from __future__ import annotations

import types

import torch
from torch import nn

from . import decode


def normalise(
    head: nn.Module, size: tuple[int, int], rotated: bool, corners: bool, keypoint: tuple[float, float] | None
) -> None:
    """Replace the decoding methods of one head instance; its class stays as it is.

    Args:
        head: a detection head with ``dfl``, ``stride`` and, for poses, ``kpt_shape``.
        size: (height, width) of the input in pixels.
        rotated: boxes have an angle.
        corners: the head's files hold x1, y1, x2, y2 instead of centre and size.
        keypoint: (gain, offset) of :func:`.decode.keypoints`, or None for heads without keypoints.
    """
    grid = decode.Grid.of(size, [int(s) for s in head.stride], head.stride.device)

    def decode_boxes(self: nn.Module, x: dict[str, torch.Tensor]) -> torch.Tensor:
        distances = self.dfl(x["boxes"])
        if rotated:
            return decode.rotated_boxes(distances, x["angle"], grid)
        return decode.boxes(distances, grid, corners)

    head._get_decode_boxes = types.MethodType(decode_boxes, head)
    if keypoint is not None:

        def decode_keypoints(self: nn.Module, raw: torch.Tensor) -> torch.Tensor:
            return decode.keypoints(raw, tuple(self.kpt_shape), grid, *keypoint)

        head.kpts_decode = types.MethodType(decode_keypoints, head)


class InPixels(nn.Module):
    """A normalised detector whose output is in pixels again, by one multiplication at the very end.

    For files whose readers expect pixels: the multiplication stays in float, all before it can be quantised.

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
        made = self.model(image)
        first = made[0] if isinstance(made, (tuple, list)) else made
        factors = decode.pixel_factors(self.size, self.classes, first.shape[1], self.keypoints)
        first = first * torch.tensor(factors, dtype=first.dtype).view(1, -1, 1)
        return (first, *made[1:]) if isinstance(made, (tuple, list)) else first
