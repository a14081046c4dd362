"""OpenVINO models: upstream's export, replaced in an INT8 export of ours."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics.engine.exporter import Exporter
from ultralytics.utils import YAML

from .. import contract as contracts
from ..files import atomic_write
from ..pipeline.finish import finish
from ..pipeline.openvino import OpenVINOBuild, calibrate, convert
from ..training.openvino_points import trained_model
from ..upstream import export_head
from ..verification.holdout import Holdout
from .calibration import search
from .exporter import job_of

#: Of an export of ours under way in this thread: upstream's ``torch2openvino`` is a function and knows no exporter.
_exporting: ContextVar[Exporter | None] = ContextVar("yolo_edgequant_openvino_exporter", default=None)


def export_openvino(original: Callable[..., str], self: Exporter, *args: Any, **kwargs: Any) -> str:
    """``Exporter.export_openvino``, which in an INT8 export of ours moves the folder into place when whole."""
    if job_of(self) is None:
        return original(self, *args, **kwargs)
    file = self.file
    folder = _folder_of(file)
    with atomic_write(folder) as temporary:
        self.file = temporary.parent / file.name
        token = _exporting.set(self)
        try:
            original(self, *args, **kwargs)
        finally:
            _exporting.reset(token)
            self.file = file
        metadata = contracts.beside(temporary, self.edgequant_contract, self.metadata)
        YAML.save(temporary / "metadata.yaml", metadata)
    return f"{folder}{os.sep}"


def _folder_of(file: Path) -> Path:
    """Where upstream puts the INT8 model of a checkpoint."""
    return file.with_name(f"{file.stem}_int8_openvino_model")


def torch2openvino(
    original: Callable[..., Any],
    model: nn.Module,
    im: torch.Tensor,
    output_dir: Path | str | None = None,
    dynamic: bool = False,
    quantize: int | str | None = None,
    calibration_dataset: Any | None = None,
    int8_detect: bool = False,
    prefix: str = "",
) -> Any:
    """``torch2openvino``, which in an INT8 export of ours quantizes with a scope found in the graph itself."""
    exporter = _exporting.get()
    if exporter is None:
        return original(model, im, output_dir, dynamic, quantize, calibration_dataset, int8_detect, prefix)
    job, size = job_of(exporter), (int(im.shape[2]), int(im.shape[3]))
    contract = export_head.prepare(exporter.model, job.request, size, exporter.metadata, job.trained_for)
    exporter.edgequant_contract = contract
    float_model = convert(model, im, contract, dynamic)
    if job.trained is not None:
        return trained_model(job.trained, float_model, tuple(im.shape), job.request.head)
    # NNCF's files change with every image that is left out, by more than a check on unseen images is worth
    batches, count = calibration_dataset.get_inference_data(), calibration_dataset.get_length()
    images = Holdout(batches, count, also_calibrate=True)
    quantized = calibrate(float_model, contract, images)
    build = OpenVINOBuild(float_model, quantized, contract, exporter.metadata, images.images, size)
    request = replace(job.request, verify=job.request.verify and not dynamic)
    with search(exporter, _folder_of(exporter.file) / "sensitivity.json") as how:
        quantized, exporter.edgequant_contract = finish(build, request, how)
    return quantized
