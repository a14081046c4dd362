"""The calibration images of an export of ours: in order, as arrays, and as a data set to validate on."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader
from ultralytics.engine.exporter import Exporter

from ..log import LOGGER
from ..pipeline.finish import Search
from ..upstream import data, validation
from .exporter import job_of

_FEW_IMAGES = 100


def calibration_loader(original: Callable[..., DataLoader], self: Exporter, prefix: str = "") -> DataLoader | None:
    """``Exporter.get_int8_calibration_dataloader``, which for an export of ours keeps the images in order.

    Upstream's shuffles them. No estimator needs that, and sums in another order end in another file: the retention of
    NNCF's files was seen to vary by 0.7 points between two exports of the same model on the same images.
    """
    job = job_of(self)
    if job is not None and job.trained is not None:
        return None  # ranges are trained, not calibrated
    loader = original(self, prefix)
    if job is None:
        return loader
    count = len(loader) * loader.batch_size
    if count < _FEW_IMAGES:
        LOGGER.warning(f"{prefix} calibrating on {count} images; fewer than {_FEW_IMAGES} give poor ranges.")
    return DataLoader(loader.dataset, loader.batch_size, collate_fn=loader.collate_fn, drop_last=True)


class Batches(Sequence[np.ndarray]):
    """A loader's images one batch at a time or by the batch's number, float32 from 0 to 1; can be iterated over again.

    Args:
        loader: from Ultralytics, of uint8 images (B, 3, H, W).
        batch: images of a batch; a short one is filled by repeating.
        channels_last: give (B, H, W, 3).
    """

    def __init__(self, loader: DataLoader, batch: int, channels_last: bool) -> None:
        self._loader, self._batch, self._channels_last = loader, batch, channels_last

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(self._images, self._loader)

    def __getitem__(self, index: int) -> np.ndarray:
        size = self._loader.batch_size
        items = [self._loader.dataset[number] for number in range(index * size, (index + 1) * size)]
        return self._images(self._loader.collate_fn(items))

    def _images(self, item: Mapping[str, Any]) -> np.ndarray:
        images = item["img"].numpy().astype(np.float32) / 255
        images = np.resize(images, (self._batch, *images.shape[1:]))
        return np.ascontiguousarray(images.transpose(0, 2, 3, 1)) if self._channels_last else images


@contextmanager
def search(exporter: Exporter, report: Path) -> Iterator[Search]:
    """What ``precision="auto"`` needs: files are validated on the calibration images, whose labels lie beside them.

    Args:
        exporter: of an export of ours.
        report: where to write what was measured.
    """
    with tempfile.TemporaryDirectory() as folder:

        def evaluate(file: Path) -> float:
            files = exporter.get_int8_calibration_dataloader().dataset.im_files
            labelled = data.only(files, exporter.metadata, Path(folder))
            arguments = {"imgsz": max(exporter.imgsz), "batch": 1, "workers": 0}
            return validation.accuracy(file, labelled, exporter.model.task, **arguments)

        yield Search(evaluate, report)
