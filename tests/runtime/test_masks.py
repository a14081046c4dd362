import numpy as np
import pytest

from yolo_edgequant.runtime.letterbox import Placement
from yolo_edgequant.runtime.masks import masks


def by_pixel(coefficients, prototypes, box, placement):
    """One mask, each pixel looked up in the map by itself."""
    rows, columns = prototypes.shape[1:]
    logits = np.einsum("c,chw->hw", coefficients, prototypes)
    (height, width), (top, left), (scaled_height, scaled_width) = placement.image, placement.corner, placement.scaled
    mask = np.zeros((height, width), bool)
    for y in range(height):
        for x in range(width):
            if not (box[0] <= x < box[2] and box[1] <= y < box[3]):
                continue
            place = []
            for pixel, size, scaled, corner, side, cells in (
                (y, height, scaled_height, top, placement.size[0], rows),
                (x, width, scaled_width, left, placement.size[1], columns),
            ):
                ratio = cells / side
                position = (corner + (pixel + 0.5) * scaled / size) * ratio - 0.5
                place.append(min(max(position, round(corner * ratio)), round((corner + scaled) * ratio) - 1))
            (low_y, low_x), high = np.floor(place).astype(int), [rows - 1, columns - 1]
            high_y, high_x = min(low_y + 1, high[0]), min(low_x + 1, high[1])
            share_y, share_x = place[0] - low_y, place[1] - low_x
            upper = logits[low_y, low_x] * (1 - share_x) + logits[low_y, high_x] * share_x
            lower = logits[high_y, low_x] * (1 - share_x) + logits[high_y, high_x] * share_x
            mask[y, x] = upper * (1 - share_y) + lower * share_y > 0
    return mask


@pytest.mark.parametrize("image", [(30, 40), (64, 64), (50, 20)])
def test_masks_are_the_maps_at_the_images_resolution_inside_the_boxes(image):
    random = np.random.default_rng(0)
    placement = Placement(image, (64, 64))
    prototypes = random.normal(0, 1, (5, 16, 16)).astype(np.float32)
    coefficients = random.normal(0, 1, (3, 5)).astype(np.float32)
    boxes = np.array([[0, 0, image[1], image[0]], [2.5, 3.0, 11.2, 17.9], [1, 1, 1, 9]], np.float32)
    found = masks(coefficients, prototypes, boxes, placement)
    assert found.shape == (3, *image)
    for mask, weights, box in zip(found, coefficients, boxes, strict=True):
        expected = by_pixel(weights, prototypes, box, placement)
        assert (mask != expected).mean() < 0.002, "but for sums of nearly 0"
    assert found[0].any()
    assert not found[2].any(), "a box without width has no pixel"


def test_no_object_has_no_mask():
    nothing = masks(
        np.empty((0, 5), np.float32), np.ones((5, 8, 8), np.float32), np.empty((0, 4)), Placement((9, 7), (64, 64))
    )
    assert nothing.shape == (0, 9, 7)
