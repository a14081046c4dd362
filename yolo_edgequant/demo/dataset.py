"""Draw a data set: coloured shapes on noisy gradients, with exact labels. No file is needed, no network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

NAMES = ("circle", "square", "triangle", "star")

TASKS = ("detect", "segment", "pose", "obb")

#: The keypoints of a shape, in order: its outermost points and its middle.
KEYPOINTS = ("top", "right", "bottom", "left", "middle")

_CORNERS = {"square": 4, "triangle": 3, "star": 10}
_FIRST_CORNER = {"square": np.pi / 4}  # radians from the x axis when upright


@dataclass(frozen=True)
class Shape:
    """One shape of a picture.

    Attributes:
        kind: class index.
        outline: (N, 2) float, polygon in pixels.
        frame: (4, 2) float, corners of the smallest rectangle around it that is turned as it is, in pixels.
    """

    kind: int
    outline: np.ndarray
    frame: np.ndarray

    @property
    def box(self) -> np.ndarray:
        """(4,) float: x1, y1, x2, y2 in pixels."""
        return np.concatenate((self.outline.min(0), self.outline.max(0)))


def outline(name: str) -> np.ndarray:
    """The upright polygon of a shape, (N, 2) float, in a circle of radius 1 around the origin."""
    corners = _CORNERS.get(name, 48)
    angles = _FIRST_CORNER.get(name, 0.0) + np.arange(corners) * 2 * np.pi / corners
    lengths = np.ones(corners)
    if name == "star":
        lengths[1::2] = 0.45
    return lengths[:, None] * np.stack((np.cos(angles), np.sin(angles)), 1)


def placed(name: str, centre: np.ndarray, radius: float, turn: float, ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """A shape at its place: its polygon and the frame around it, as in :class:`Shape`.

    Args:
        name: one of :data:`NAMES`.
        centre, radius: pixels.
        turn: radians, of the first corner from the x axis.
        ratio: height to width before the turn; at 1 a shape looks the same from several sides.
    """
    upright = outline(name) * (radius, radius * ratio)
    (x1, y1), (x2, y2) = upright.min(0), upright.max(0)
    frame = np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)])
    turn = turn - _FIRST_CORNER.get(name, 0.0)
    rotation = np.array([(np.cos(turn), np.sin(turn)), (-np.sin(turn), np.cos(turn))])
    return centre + upright @ rotation, centre + frame @ rotation


def picture(size: int, random: np.random.Generator, flattened: bool = False) -> tuple[np.ndarray, list[Shape]]:
    """Draw one image.

    Args:
        size: side in pixels.
        random: source of everything in the image.
        flattened: take in the shapes' height to a third to two thirds, so that each has one angle.

    Returns:
        (size, size, 3) uint8 BGR, and the shapes, the later one in front.
    """
    ramp = np.linspace(0, 1, size)
    across, down = np.meshgrid(ramp, ramp)
    tilt = random.uniform(0, 2 * np.pi)
    slope = (across * np.cos(tilt) + down * np.sin(tilt))[..., None]
    canvas = random.uniform(40, 215, 3) + slope * random.uniform(-80, 80, 3)
    coarse = random.normal(0, 14, (size // 8, size // 8, 3)).astype(np.float32)
    canvas = canvas + cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    image = np.clip(canvas, 0, 255).astype(np.uint8)
    shapes: list[Shape] = []
    for _ in range(random.integers(1, 8)):
        kind = int(random.integers(len(NAMES)))
        radius = size * float(np.exp(random.uniform(np.log(0.035), np.log(0.24))))
        centre = random.uniform(radius, size - radius, 2)
        turn = random.uniform(0, 2 * np.pi)
        ratio = random.uniform(0.33, 0.67) if flattened else 1.0
        shape = Shape(kind, *placed(NAMES[kind], centre, radius, turn, ratio))
        if any(_overlap(shape.box, other.box) > 0.3 for other in shapes):
            continue
        colour = [int(c) for c in random.integers(0, 256, 3)]
        points = np.round(shape.outline * 16).astype(np.int32)
        cv2.fillPoly(image, [points], colour, cv2.LINE_AA, 4)
        if random.random() < 0.4:
            edge = [int(c) for c in random.integers(0, 256, 3)]
            cv2.polylines(image, [points], True, edge, 1, cv2.LINE_AA, 4)
        shapes.append(shape)
    noise = random.normal(0, random.uniform(1, 8), image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8), shapes


def label(shape: Shape, task: str, size: int) -> list[float]:
    """A shape's numbers in Ultralytics' label format of the task, as shares of the image's side.

    Boxes are centre x, centre y, width and height; segment has the polygon; obb the corners of the frame; pose the box
    and x, y and 2 (visible) for each of :data:`KEYPOINTS`.
    """
    polygon = shape.outline / size
    if task == "segment":
        return polygon.ravel().tolist()
    if task == "obb":
        return (shape.frame / size).ravel().tolist()
    low, high = polygon.min(0), polygon.max(0)
    box = [*((low + high) / 2), *(high - low)]
    if task == "detect":
        return box
    x, y = polygon.T
    outermost = polygon[[y.argmin(), x.argmax(), y.argmax(), x.argmin()]]
    return [*box, *(value for point in (*outermost, polygon.mean(0)) for value in (*point, 2))]


def data_set(folder: Path, train: int, val: int, size: int, seed: int = 0, task: str = "detect") -> Path:
    """Draw images and labels in Ultralytics' layout.

    Args:
        folder: where to; made if missing.
        train, val: number of images of each split.
        size: side of the images in pixels.
        seed: the same seed draws the same images.
        task: one of :data:`TASKS`.

    Returns:
        The data set's YAML file.
    """
    for split, count in (("train", train), ("val", val)):
        images, labels = folder / "images" / split, folder / "labels" / split
        images.mkdir(parents=True, exist_ok=True)
        labels.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            random = np.random.default_rng((seed, split == "val", index))
            image, shapes = picture(size, random, flattened=task == "obb")
            cv2.imwrite(str(images / f"{index:05d}.png"), image)
            rows = [" ".join(f"{v:.6g}" for v in (shape.kind, *label(shape, task, size))) + "\n" for shape in shapes]
            (labels / f"{index:05d}.txt").write_text("".join(rows))
    yaml = folder / "shapes.yaml"
    names = "".join(f"  {index}: {name}\n" for index, name in enumerate(NAMES))
    poses = f"kpt_shape: [{len(KEYPOINTS)}, 3]\nflip_idx: [0, 3, 2, 1, 4]\n" if task == "pose" else ""
    yaml.write_text(f"path: {folder.resolve()}\ntrain: images/train\nval: images/val\nnames:\n{names}{poses}")
    return yaml


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over the smaller of two (x1, y1, x2, y2) boxes."""
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    shared = np.prod(np.clip(high - low, 0, None))
    return float(shared / min(np.prod(one[2:] - one[:2]), np.prod(other[2:] - other[:2])))
