"""Draw a detection data set: coloured shapes on noisy gradients, with exact boxes. No file is needed, no network."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

NAMES = ("circle", "square", "triangle", "star")

_CORNERS = {"square": 4, "triangle": 3, "star": 10}


def outline(name: str, centre: np.ndarray, radius: float, turn: float) -> np.ndarray:
    """The polygon of a shape: (N, 2) float, pixels, for a circumscribed circle of `radius` turned by `turn` radians."""
    corners = _CORNERS.get(name, 48)
    angles = turn + np.arange(corners) * 2 * np.pi / corners
    lengths = np.full(corners, radius)
    if name == "star":
        lengths[1::2] *= 0.45
    return centre + lengths[:, None] * np.stack((np.cos(angles), np.sin(angles)), 1)


def picture(size: int, random: np.random.Generator) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """Draw one image.

    Args:
        size: side in pixels.
        random: source of everything in the image.

    Returns:
        (size, size, 3) uint8 BGR, and (class index, (N, 2) polygon in pixels) of each shape, the later one in front.
    """
    ramp = np.linspace(0, 1, size)
    across, down = np.meshgrid(ramp, ramp)
    tilt = random.uniform(0, 2 * np.pi)
    slope = (across * np.cos(tilt) + down * np.sin(tilt))[..., None]
    canvas = random.uniform(40, 215, 3) + slope * random.uniform(-80, 80, 3)
    coarse = random.normal(0, 14, (size // 8, size // 8, 3)).astype(np.float32)
    canvas = canvas + cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    image = np.clip(canvas, 0, 255).astype(np.uint8)
    shapes: list[tuple[int, np.ndarray]] = []
    for _ in range(random.integers(1, 8)):
        kind = int(random.integers(len(NAMES)))
        radius = size * float(np.exp(random.uniform(np.log(0.035), np.log(0.24))))
        centre = random.uniform(radius, size - radius, 2)
        polygon = outline(NAMES[kind], centre, radius, random.uniform(0, 2 * np.pi))
        box = np.concatenate((polygon.min(0), polygon.max(0)))
        if any(_overlap(box, np.concatenate((other.min(0), other.max(0)))) > 0.3 for _, other in shapes):
            continue
        colour = [int(c) for c in random.integers(0, 256, 3)]
        points = np.round(polygon * 16).astype(np.int32)
        cv2.fillPoly(image, [points], colour, cv2.LINE_AA, 4)
        if random.random() < 0.4:
            edge = [int(c) for c in random.integers(0, 256, 3)]
            cv2.polylines(image, [points], True, edge, 1, cv2.LINE_AA, 4)
        shapes.append((kind, polygon))
    noise = random.normal(0, random.uniform(1, 8), image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8), shapes


def data_set(folder: Path, train: int, val: int, size: int, seed: int = 0) -> Path:
    """Draw images and labels in Ultralytics' layout.

    Args:
        folder: where to; made if missing.
        train, val: number of images of each split.
        size: side of the images in pixels.
        seed: the same seed draws the same images.

    Returns:
        The data set's YAML file.
    """
    for split, count in (("train", train), ("val", val)):
        images, labels = folder / "images" / split, folder / "labels" / split
        images.mkdir(parents=True, exist_ok=True)
        labels.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            image, shapes = picture(size, np.random.default_rng((seed, split == "val", index)))
            cv2.imwrite(str(images / f"{index:05d}.png"), image)
            rows = []
            for kind, polygon in shapes:
                low, high = polygon.min(0) / size, polygon.max(0) / size
                centre, extent = (low + high) / 2, high - low
                rows.append(f"{kind} {centre[0]:.6f} {centre[1]:.6f} {extent[0]:.6f} {extent[1]:.6f}\n")
            (labels / f"{index:05d}.txt").write_text("".join(rows))
    yaml = folder / "shapes.yaml"
    names = "".join(f"  {index}: {name}\n" for index, name in enumerate(NAMES))
    yaml.write_text(f"path: {folder.resolve()}\ntrain: images/train\nval: images/val\nnames:\n{names}")
    return yaml


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over the smaller of two (x1, y1, x2, y2) boxes."""
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    shared = np.prod(np.clip(high - low, 0, None))
    return float(shared / min(np.prod(one[2:] - one[:2]), np.prod(other[2:] - other[:2])))
