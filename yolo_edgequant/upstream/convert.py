"""Upstream's converters, replaced inside an INT8 export of ours: from the exporter's model to finished files."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__
from ..errors import CompilerError, MissingToolError
from ..files import whole
from . import aware, precision
from .activation import swapped
from .export import Job, active
from .making import Making, append_metadata, estimators, judge, write

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.utils.data import DataLoader
    from ultralytics.engine.exporter import Exporter

    from ..pipeline import Calibrated

_FEW_IMAGES = 100


def calibration_loader(original: Callable[..., DataLoader], self: Exporter, prefix: str = "") -> DataLoader | None:
    """``Exporter.get_int8_calibration_dataloader``, which inside an INT8 export of ours keeps the images in order.

    Upstream's shuffles them. No estimator needs that, and sums in another order end in another file: the retention of
    NNCF's files was seen to vary by 0.7 points between two exports of the same model on the same images.
    """
    job = active()
    if job is not None and aware.quantization_of(job.source) is not None:
        return None  # ranges are trained, not calibrated
    loader = original(self, prefix)
    if job is None:
        return loader
    from torch.utils.data import DataLoader
    from ultralytics.utils import LOGGER

    count = len(loader) * loader.batch_size
    if count < _FEW_IMAGES:
        LOGGER.warning(f"{prefix} calibrating on {count} images; fewer than {_FEW_IMAGES} give poor ranges.")
    return DataLoader(loader.dataset, loader.batch_size, collate_fn=loader.collate_fn, drop_last=True)


def torch2litert(
    original: Callable[..., str],
    model: nn.Module,
    im: torch.Tensor,
    file: Path | str,
    quantize: int | str | None = None,
    calibration_dataset: DataLoader | None = None,
    metadata: dict[str, Any] | None = None,
    prefix: str = "",
) -> str:
    """``torch2litert``, which inside an INT8 export of ours writes the file that the request asks for."""
    job = active()
    if job is None:
        return original(model, im, file, quantize, calibration_dataset, metadata, prefix)
    request = job.request
    file = Path(file)
    calibrated, held = _calibrated(job, model, im, calibration_dataset, prefix)
    job.note(calibrated=calibrated)
    metadata = job.exporter.metadata
    making = Making(job, calibrated, held, request.head, request.io, metadata)
    in_float = None
    if request.precision == "auto":
        layers = precision.OfTFLite(making)
        in_float = layers.rule(
            precision.choose(
                layers, job, calibration_dataset, metadata, file.with_name(f"{file.stem}_sensitivity.json")
            )
        )
    content = making.finished(in_float)
    whole_integer = "integer_quant" if request.head == "float" else "full_integer_quant"
    tag = "int8" if request.profile.format == "litert" else whole_integer
    path = file.with_name(f"{file.stem}_{tag}.tflite")
    write(path, content, metadata)
    return _compile_edgetpu(path, metadata, prefix) if request.profile.format == "edgetpu" else str(path)


def export_saved_model(original: Callable[..., Any], self: Exporter, *args: Any, **kwargs: Any) -> tuple[str, None]:
    """``Exporter.export_saved_model``, which inside an INT8 export of ours makes the same files, all of them right.

    The SavedModel stays in float, as upstream's is; its ``.tflite`` files come from one conversion and one calibration.
    """
    job = active()
    if job is None:
        return original(self, *args, **kwargs)
    from ai_edge_quantizer import quantizer, recipe
    from ultralytics.utils import YAML, colorstr

    from ..conversion.saved_model import to_saved_model

    request = job.request
    prefix = colorstr("TensorFlow SavedModel:")
    folder = Path(str(self.file).replace(self.file.suffix, "_saved_model"))
    stem = self.file.stem
    with whole(folder) as temporary:
        self.args.simplify = True
        onnx_file = Path(self.export_onnx())
        try:
            to_saved_model(onnx_file, temporary)
        finally:
            onnx_file.unlink(missing_ok=True)
        YAML.save(temporary / "metadata.yaml", self.metadata)
        loader = self.get_int8_calibration_dataloader(prefix)
        calibrated, held = _calibrated(job, self.model, self.im, loader, prefix)

        def described(tag: str) -> dict[str, Any]:
            return {**self.metadata, "edgequant": {**self.metadata["edgequant"], **_PARTS[tag]}}

        metadata = {tag: described(tag) for tag in _PARTS}

        def integer(tag: str, head: str, io: str) -> bytes:
            return Making(job, calibrated, held, head, io, metadata[tag]).finished()

        weights_only = quantizer.Quantizer(calibrated.content, recipe.dynamic_wi8_afp32())
        half = quantizer.Quantizer(calibrated.content)
        half.add_weight_only_config(".*", "*", 16, algorithm_key="float_casting")
        files = {
            "float32": calibrated.content,
            "float16": bytes(half.quantize(enable_progress_report=False).quantized_model),
            "int8": bytes(weights_only.quantize(enable_progress_report=False).quantized_model),
            "integer_quant": integer("integer_quant", request.head, "float"),
            "full_integer_quant": integer("full_integer_quant", "int8", request.io),
        }
        for tag, content in files.items():
            write(temporary / f"{stem}_{tag}.tflite", content, metadata[tag])
    return str(folder), None


#: How the files of a SavedModel's folder differ from the request.
_FLOAT = {"head": "float", "ranges": "none", "corrections": "none", "io": "float"}
_PARTS: dict[str, dict[str, str]] = {
    "float32": _FLOAT,
    "float16": _FLOAT,
    "int8": _FLOAT,
    "integer_quant": {"io": "float"},
    "full_integer_quant": {"head": "int8"},
}


def export_openvino(original: Callable[..., str], self: Exporter, *args: Any, **kwargs: Any) -> str:
    """``Exporter.export_openvino``, which inside an INT8 export of ours moves the folder into place when whole."""
    if active() is None:
        return original(self, *args, **kwargs)
    file = self.file
    folder = _openvino_folder(file)
    with whole(folder) as temporary:
        self.file = temporary.parent / file.name
        try:
            original(self, *args, **kwargs)
        finally:
            self.file = file
        (temporary / "metadata.json").write_text(json.dumps(self.metadata))  # for the runtime, which reads no YAML
    return f"{folder}{os.sep}"


def _openvino_folder(file: Path) -> Path:
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
    """``torch2openvino``, which inside an INT8 export of ours quantises with a scope found in the graph itself."""
    job = active()
    if job is None:
        return original(model, im, output_dir, dynamic, quantize, calibration_dataset, int8_detect, prefix)
    import nncf

    from ..heads.decode import InPixels
    from ..quantization import openvino
    from ..verification import culprit
    from ..verification.agreement import compare
    from ..verification.held import HeldBack
    from .heads import detection_head

    request = job.request
    head = detection_head(job.exporter.model)
    _prepare_head(job, im)
    if request.head == "int8" and head is not None:
        model = InPixels(model, (int(im.shape[2]), int(im.shape[3])), head.nc, getattr(head, "kpt_shape", None))
    float_model = original(model, im, None, dynamic, None, None, int8_detect, prefix)
    if aware.quantization_of(job.source) is not None:
        return aware.quantised(job, float_model, tuple(im.shape))
    # NNCF's files change with every image that is left out, by more than a check on unseen images is worth
    images = HeldBack(calibration_dataset.get_inference_data(), calibration_dataset.get_length(), given=True)
    quantised = openvino.quantize(float_model, nncf.Dataset(images), request.head, len(images))
    if request.precision == "auto":
        layers = precision.OfOpenVINO(job, float_model, quantised, images.images)
        loader = job.exporter.get_int8_calibration_dataloader(prefix)
        report = _openvino_folder(job.exporter.file) / "sensitivity.json"
        quantised = layers.model(precision.choose(layers, job, loader, job.exporter.metadata, report))
    job.note(float_model=float_model, quantised=quantised)
    if request.verify and images.images and not dynamic:
        metadata, size = job.exporter.metadata, (int(im.shape[2]), int(im.shape[3]))
        reference, made = openvino.run(float_model, images.images, exact=True), openvino.run(quantised, images.images)
        found = compare(metadata, size, reference, made)
        judge(found, metadata, lambda: culprit.of_openvino(float_model, quantised, images.images[0]))
    return quantised


def _prepare_head(job: Job, image: torch.Tensor) -> None:
    """Give the head of the exporter's model the arithmetic of the request, and note in the metadata what it holds."""
    from .heads import (
        detach_head,
        detection_head,
        fold_texts,
        has_masks,
        keep_all_cells,
        normalise_head,
        separate_outputs,
        sum_expectation,
    )

    request, exporter = job.request, job.exporter
    contract: dict[str, Any] = {
        "schema": 1,
        "version": __version__,
        "head": request.head,
        "granularity": request.granularity,
        "ranges": request.ranges,
        "corrections": request.corrections,
        "io": request.io,
        "layout": "NHWC" if request.profile.channels_last else "NCHW",
    }
    quantization = aware.quantization_of(job.source)
    if quantization is not None:
        contract.update(
            ranges="trained",
            corrections="none",
            trained={"target": quantization.target, "granularity": quantization.granularity},
        )
    activation = swapped(exporter.model)
    if activation is not None:
        contract["activation"] = activation
    exporter.metadata["edgequant"] = contract
    head = detection_head(exporter.model)
    if head is None:
        return
    fold_texts(exporter.model)
    openvino = request.profile.format == "openvino"
    # upstream reads NMS-free output as pixels from NCHW files and as shares of the input from NHWC files
    in_pixels = openvino or (head.end2end and request.head == "float" and not request.profile.channels_last)
    size = (int(image.shape[2]), int(image.shape[3]))
    if exporter.model.end2end and request.head != "float":
        contract["top_k"] = {"count": head.max_det, "agnostic": bool(head.agnostic_nms)}
    if request.head == "raw":
        contract["raw"] = detach_head(head, cells_first=not openvino)
        return
    if openvino:
        sum_expectation(head)
    contract["boxes"] = "pixels" if in_pixels else "normalised"
    names = ["detections", "prototypes"] if has_masks(head) else ["detections"]
    if request.head == "int8":
        keep_all_cells(head)
        if request.profile.separate:
            names = separate_outputs(head)
    contract["outputs"] = [{"name": name} for name in names]
    if request.head == "int8" or not in_pixels:
        normalise_head(head, size)


def _calibrated(
    job: Job, model: nn.Module, image: torch.Tensor, loader: DataLoader | None, prefix: str
) -> tuple[Calibrated, list[np.ndarray]]:
    """Convert the exporter's model and calibrate it; also the images held back from this."""
    from rich.progress import track
    from ultralytics.utils import LOGGER

    from .. import pipeline
    from ..conversion.litert import to_tflite
    from ..quantization import cells, equalization
    from ..quantization.graph import Graph
    from ..verification.held import HeldBack
    from .heads import detection_head

    request = job.request
    _prepare_head(job, image)
    LOGGER.info(f"\n{prefix} converting with litert-torch...")
    content = to_tflite(model, image, request.profile.channels_last)
    trained = aware.quantization_of(job.source) is not None
    if not trained and request.granularity == "tensor" and request.corrections in {"all", "equalization"}:
        content = equalization.equalize(content)
    contract = job.exporter.metadata["edgequant"]
    described = contract.get("raw", contract)
    graph = Graph(content)
    if "outputs" in described:  # in the file's order
        described["outputs"] = [described["outputs"][position] for position in graph.output_order()]
    head = detection_head(job.exporter.model)
    logits: list[int] = []
    found = None
    if "raw" in contract:
        outputs = contract["raw"]["outputs"]
        logits = [i for i, output in enumerate(outputs) if output["name"] in {"scores", "visibility"}]
        found = cells.of_raw(graph, outputs)
    elif head is not None:
        levels = [int(image.shape[2] // stride * (image.shape[3] // stride)) for stride in head.stride.int()]
        found = cells.of_decoded(graph, levels, head.nc)
        if found is None:
            LOGGER.warning(f"{prefix} the cells of this head were not found; ranges cover cells without objects, too.")
    if trained:
        return aware.calibrated(job, content, tuple(image.shape), logits), []
    if request.corrections not in {"all", "cells"}:
        found = None
    images = HeldBack(_images(loader, image.shape[0], request.profile.channels_last), len(loader))
    progress = track(images, f"calibrating ({request.ranges})", transient=True)
    return pipeline.calibrate(content, progress, logits, found, estimators(request)), images.images


def _images(loader: DataLoader, batch: int, channels_last: bool) -> Iterator[np.ndarray]:
    """The loader's images one batch at a time, float32 from 0 to 1; a short batch is filled by repeating."""
    for item in loader:
        images = item["img"].numpy().astype(np.float32) / 255
        images = np.resize(images, (batch, *images.shape[1:]))
        yield np.ascontiguousarray(images.transpose(0, 2, 3, 1)) if channels_last else images


def _compile_edgetpu(path: Path, metadata: dict[str, Any], prefix: str) -> str:
    """Compile a finished ``.tflite`` for the Edge TPU, with the compiler on PATH.

    Raises:
        MissingToolError: there is no compiler; the ``.tflite`` stays.
        CompilerError: it failed; the ``.tflite`` stays.
    """
    from ultralytics.utils.export.tensorflow import tflite2edgetpu

    if shutil.which("edgetpu_compiler") is None:
        command = shlex.join(["edgetpu_compiler", "--search_delegate", path.name])
        raise MissingToolError(
            f"edgetpu_compiler is not on PATH, so there is no Edge TPU file yet; '{path}' is finished: on a machine "
            f"with the compiler (https://coral.ai/docs/edgetpu/compiler) run: {command}"
        )
    try:
        compiled = tflite2edgetpu(tflite_file=path, output_dir=path.parent, prefix=prefix)
    except (subprocess.CalledProcessError, OSError) as error:
        raise CompilerError(f"edgetpu_compiler failed on '{path}', which is kept: {error}") from error
    if not Path(compiled).is_file():
        raise CompilerError(f"edgetpu_compiler left no '{compiled}'; '{path}' is kept")
    append_metadata(Path(compiled), metadata)
    return compiled
