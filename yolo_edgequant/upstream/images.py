"""Images of a data set as Ultralytics prepares them for its models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def share(data: str | Path, most: int) -> float:
    """The share of a data set's training split that has at most so many images, above 0 and at most 1."""
    return min(1.0, most / len(_training_set(data, 640, 1)))


def _training_set(data: str | Path, imgsz: int, batch: int) -> Any:
    """The training split, letterboxed and without augmentation."""
    from ultralytics.cfg import get_cfg
    from ultralytics.data.build import build_yolo_dataset
    from ultralytics.data.utils import check_det_dataset

    found = check_det_dataset(str(data), autodownload=False, split="train")
    config = get_cfg(overrides={"imgsz": imgsz, "rect": False, "cache": False})
    return build_yolo_dataset(config, found["train"], batch, found, mode="val")


def training_images(data: str | Path, imgsz: int, count: int, batch: int = 16) -> list[torch.Tensor]:
    """Images of the training split, spread evenly over it, without augmentation.

    Args:
        data: data set YAML.
        imgsz: pixels of the square that they are letterboxed to.
        count: of images; all there are if they are fewer.
        batch: images of a tensor.

    Returns:
        (B, 3, imgsz, imgsz) each, float32, 0 to 1.
    """
    import torch

    images = _training_set(data, imgsz, batch)
    step = max(1, len(images) // count)
    chosen = [images[index]["img"] for index in range(0, len(images), step)][:count]
    return [part.float() / 255 for part in torch.stack(chosen).split(batch)]
