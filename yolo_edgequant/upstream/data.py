"""Data sets as Ultralytics finds and prepares them, checked before any work and without fetching anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ultralytics.cfg import TASK2DATA, get_cfg
from ultralytics.data.build import build_yolo_dataset
from ultralytics.data.utils import check_cls_dataset
from ultralytics.utils import DATASETS_DIR, DEFAULT_CFG_DICT, YAML

from ..errors import DataError
from ..log import LOGGER
from . import compat


def check(data: str | Path | None, splits: Sequence[str], task: str = "detect") -> dict[str, Any]:
    """Find the images of a data set.

    Args:
        data: data set YAML; for classification a folder, or its name in Ultralytics' folder of data sets.
        splits: that it must have.
        task: of the model.

    Returns:
        What Ultralytics knows of it.

    Raises:
        DataError: there is no such data set, or a split of it is missing.
    """
    if not data:
        raise DataError("images are needed: pass data='your.yaml' (100 or more, of the deployment's kind)")
    try:
        if task != "classify":
            facts = [compat.detection_data(str(data), split) for split in splits]
            return facts[0]
        if not any(folder.is_dir() for folder in (Path(data), DATASETS_DIR / data)):
            raise FileNotFoundError(f"folder '{data}' not found, nor in '{DATASETS_DIR}'")  # upstream would fetch it
        facts = [check_cls_dataset(data, split=split) for split in splits]
        return facts[0]
    except (FileNotFoundError, SyntaxError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"no images: data={str(data)!r}, split={' and '.join(splits)!r}: {reason}") from error


def for_calibration(data: str | Path | None, split: str, task: str) -> str:
    """The data set to calibrate on: the one that is given, else the few images that Ultralytics takes for a task.

    Args:
        data: as in :func:`check`, or None.
        split: of it.
        task: of the model.

    Raises:
        DataError: it is not on this machine.
    """
    if data:
        check(data, [split], task)
        return str(data)  # some releases cannot write a path into a file's metadata
    name = DEFAULT_CFG_DICT["data"] or TASK2DATA[task]
    advice = "pass data='your.yaml' (100 images or more, of the deployment's kind)"
    try:
        place = check(name, [split], task)[split]
    except DataError as error:
        raise DataError(
            f"images are needed: {advice}; Ultralytics' own choice, '{name}', is not on this machine"
        ) from error
    LOGGER.warning(f"no data= was given, so the ranges are those of {_count_all(place)} images in '{name}'; {advice}")
    return name


def share(data: str | Path, split: str, fraction: float) -> int:
    """The number of images that a share of a split has, as Ultralytics rounds it.

    Args:
        data, split: as in :func:`check`.
        fraction: the share, above 0 and at most 1.

    Raises:
        DataError: there is no such data set, or no such split of it.
    """
    return max(1, round(_count_all(check(data, [split])[split]) * fraction))


def _count_all(places: str | list[str]) -> int:
    return sum(_count(Path(place)) for place in (places if isinstance(places, list) else [places]))


def _count(place: Path) -> int:
    """The images in a folder, those in its folders included, or in a list of files."""
    if place.is_dir():
        return sum(path.is_file() for path in place.rglob("*.*"))
    return len(place.read_text().split())


class TrainingImages:
    """Images of the training split, spread evenly over it, letterboxed, without augmentation; read when iterated over.

    Iterating gives (B, 3, imgsz, imgsz) each, float32, 0 to 1.

    Args:
        data: data set YAML.
        imgsz: pixels of the square that they are letterboxed to.
        count: of images; all there are if they are fewer.
        batch: images of a tensor; the last may have fewer.
    """

    def __init__(self, data: str | Path, imgsz: int, count: int, batch: int = 16) -> None:
        facts = check(data, ["train"])
        config = get_cfg(overrides={"imgsz": imgsz, "rect": False, "cache": False})
        self._images = build_yolo_dataset(config, facts["train"], batch, facts, mode="val")
        step = max(1, len(self._images) // count)
        self._indices = range(0, len(self._images), step)[:count]
        self._batch = batch

    def __len__(self) -> int:
        return -(-len(self._indices) // self._batch)

    def __iter__(self) -> Iterator[torch.Tensor]:
        for start in range(0, len(self._indices), self._batch):
            part = [self._images[index]["img"] for index in self._indices[start : start + self._batch]]
            yield torch.stack(part).float() / 255


class ImageArrays:
    """The same images one by one as arrays, (1, 3, H, W) float32 or (1, H, W, 3); can be iterated over again.

    Args:
        images: with one image a batch.
        channels_last: give (1, H, W, 3).
    """

    def __init__(self, images: TrainingImages, channels_last: bool) -> None:
        self._images, self._channels_last = images, channels_last

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[np.ndarray]:
        for image in self._images:
            yield np.ascontiguousarray((image.permute(0, 2, 3, 1) if self._channels_last else image).numpy())


def image_files(data: str | Path, split: str) -> list[Path]:
    """The image files of a split that is given as folders."""
    folders = check(data, [split])[split]
    return [file for folder in ([folders] if isinstance(folders, str) else folders) for file in _files(Path(folder))]


def _files(place: Path) -> list[Path]:
    return sorted(place.iterdir()) if place.is_dir() else [Path(line) for line in place.read_text().split()]


def only(files: Sequence[str | Path], metadata: Mapping[str, Any], folder: Path) -> Path:
    """The YAML of a data set with some image files alone; Ultralytics finds their labels beside them.

    Args:
        files: the images.
        metadata: of the model, for the names of its classes and its keypoints.
        folder: to write to.
    """
    images = folder / "images.txt"
    images.write_text("".join(f"{Path(file).resolve()}\n" for file in files))
    facts = {key: metadata[key] for key in ("names", "kpt_shape") if key in metadata}
    YAML.save(folder / "data.yaml", {"path": str(folder), "train": str(images), "val": str(images), **facts})
    return folder / "data.yaml"
