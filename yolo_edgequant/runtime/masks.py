"""Masks of the objects at the image's own resolution."""

from __future__ import annotations

import numpy as np

from .letterbox import Placement


def masks(coefficients: np.ndarray, prototypes: np.ndarray, boxes: np.ndarray, placement: Placement) -> np.ndarray:
    """Weigh the prototypes, scale the sum to the image by bilinear interpolation, and cut it at the boxes.

    Args:
        coefficients: (N, C) float32.
        prototypes: (C, h, w) float32, over the model's input.
        boxes: (N, 4) float32, in pixels of the image.
        placement: of the image in the input.

    Returns:
        (N, H, W) bool, (H, W) being the image's size.
    """
    channels, rows, columns = prototypes.shape
    logits = (coefficients @ prototypes.reshape(channels, -1)).reshape(-1, rows, columns)
    height, width = placement.image
    down = _interpolation(height, placement.scaled[0], placement.corner[0], placement.size[0], rows)
    across = _interpolation(width, placement.scaled[1], placement.corner[1], placement.size[1], columns)
    pixels = np.zeros((len(boxes), height, width), bool)
    for mask, logit, box in zip(pixels, logits, boxes, strict=True):
        left, top, right, bottom = np.ceil(box).astype(int)  # a pixel is inside from its number on
        inside = down[top:bottom] @ logit @ across[left:right].T
        mask[top:bottom, left:right] = inside > 0
    return pixels


def _interpolation(image: int, scaled: int, corner: int, size: int, maps: int) -> np.ndarray:
    """(image, maps) float32: the weights of a map's cells in each pixel of one axis of the image.

    The pixel lies in the input at `corner` + (pixel + 0.5) * `scaled` / `image`; cells outside of the image take
    no part.
    """
    ratio = maps / size
    first, last = round(corner * ratio), round((corner + scaled) * ratio) - 1
    place = (corner + (np.arange(image) + 0.5) * scaled / image) * ratio - 0.5
    place = place.clip(first, max(first, last))
    low = np.floor(place).astype(int)
    high = np.minimum(low + 1, maps - 1)
    weights = np.zeros((image, maps), np.float32)
    pixels = np.arange(image)
    np.add.at(weights, (pixels, low), 1 - (place - low))
    np.add.at(weights, (pixels, high), place - low)
    return weights
