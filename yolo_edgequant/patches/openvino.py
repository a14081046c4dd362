"""OpenVINO folders of an INT8 export of ours."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import openvino as ov
from ultralytics.engine.exporter import Exporter, NMSModel
from ultralytics.utils import YAML, colorstr

from .. import contract as contracts
from ..files import atomic_write
from ..openvino import graph
from ..pipeline.finish import finish
from ..pipeline.openvino import OpenVINOBuild, calibrate, convert
from ..training.openvino_points import trained_model
from ..upstream import export_head
from ..verification.holdout import Holdout
from .calibration import Batches, search
from .exporter import job_of


def write_openvino(exporter: Exporter) -> str:
    """Write the folder with the INT8 model that an exporter's request asks for; it is moved into place when whole.

    Args:
        exporter: of an export of ours, at the point where upstream would convert.
    """
    folder = exporter.file.with_name(f"{exporter.file.stem}_int8_openvino_model")
    with atomic_write(folder) as temporary:
        temporary.mkdir()
        model = _quantized(exporter, temporary / "sensitivity.json")
        _describe(model, exporter)
        for port, output in zip(
            model.outputs, exporter.edgequant_contract.outputs, strict=False
        ):  # none of a classifier
            port.tensor.set_names({output.title})
        graph.number_names(model)
        ov.save_model(model, temporary / exporter.file.with_suffix(".xml").name, compress_to_fp16=False)
        metadata = contracts.beside(temporary, exporter.edgequant_contract, exporter.metadata)
        YAML.save(temporary / "metadata.yaml", metadata)
    return f"{folder}{os.sep}"


def _quantized(exporter: Exporter, report: Path) -> ov.Model:
    """The INT8 model of an exporter's model, by calibration or with the ranges that it was trained with."""
    job, image = job_of(exporter), exporter.im
    size, dynamic = (int(image.shape[2]), int(image.shape[3])), bool(exporter.args.dynamic)
    contract = export_head.prepare(exporter.model, job.request, size, exporter.metadata, job.trained_for)
    exporter.edgequant_contract = contract
    model = NMSModel(exporter.model, exporter.args) if exporter.args.nms else exporter.model
    float_model = convert(model, image, contract, dynamic)
    if job.trained is not None:
        return trained_model(job.trained, float_model, tuple(image.shape), job.request.head)
    loader = exporter.get_int8_calibration_dataloader(colorstr("OpenVINO:"))
    batches = Batches(loader, loader.batch_size if dynamic else image.shape[0], channels_last=False)
    # NNCF's files change with every image that is left out, by more than a check on unseen images is worth
    images = Holdout(batches, len(batches), also_calibrate=True)
    quantized, logits = calibrate(float_model, contract, images)
    build = OpenVINOBuild(float_model, quantized, contract, exporter.metadata, images.images, size, images, logits)
    request = replace(job.request, verify=job.request.verify and not dynamic)
    with search(exporter, report) as how:
        quantized, exporter.edgequant_contract = finish(build, request, how)
    return quantized


def _describe(model: ov.Model, exporter: Exporter) -> None:
    """Say in an OpenVINO model what OpenVINO's Model API reads: how to prepare images, and the names of the classes."""
    facts = {
        "model_type": "YOLO",
        "reverse_input_channels": True,
        "pad_value": 114,
        "scale_values": [255.0],
        "iou_threshold": exporter.args.iou,
        "labels": [name.replace(" ", "_") for name in exporter.model.names.values()],
    }
    if exporter.model.task != "classify":
        facts["resize_type"] = "fit_to_window_letterbox"
    for name, value in facts.items():
        model.set_rt_info(value, ["model_info", name])
