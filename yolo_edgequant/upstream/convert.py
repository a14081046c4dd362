"""Upstream's converters, replaced inside an INT8 export of ours: from the exporter's model to finished files."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__
from ..errors import CompilerError, MissingToolError
from ..files import whole
from .activation import swapped
from .export import Job, active

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.utils.data import DataLoader
    from ultralytics.engine.exporter import Exporter

    from ..pipeline import Calibrated

_FEW_IMAGES = 100


def calibration_loader(original: Callable[..., DataLoader], self: Exporter, prefix: str = "") -> DataLoader:
    """``Exporter.get_int8_calibration_dataloader``, which inside an INT8 export of ours keeps the images in order.

    Upstream's shuffles them. No estimator needs that, and sums in another order end in another file: the retention of
    NNCF's files was seen to vary by 0.7 points between two exports of the same model on the same images.
    """
    loader = original(self, prefix)
    if active() is None:
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
    calibrated = _calibrated(job, model, im, calibration_dataset, prefix)
    content = calibrated.quantise(request.head, request.granularity, request.io)
    whole_integer = "integer_quant" if request.head == "float" else "full_integer_quant"
    tag = "int8" if request.profile.format == "litert" else whole_integer
    path = file.with_name(f"{file.stem}_{tag}.tflite")
    _write(path, content, job.exporter.metadata)
    return _compile_edgetpu(path, job.exporter.metadata, prefix) if request.profile.format == "edgetpu" else str(path)


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
        calibrated = _calibrated(job, self.model, self.im, loader, prefix)
        weights_only = quantizer.Quantizer(calibrated.content, recipe.dynamic_wi8_afp32())
        half = quantizer.Quantizer(calibrated.content)
        half.add_weight_only_config(".*", "*", 16, algorithm_key="float_casting")
        files = {
            "float32": calibrated.content,
            "float16": bytes(half.quantize(enable_progress_report=False).quantized_model),
            "int8": bytes(weights_only.quantize(enable_progress_report=False).quantized_model),
            "integer_quant": calibrated.quantise(request.head, request.granularity, "float"),
            "full_integer_quant": calibrated.quantise("int8", request.granularity, request.io),
        }
        for tag, content in files.items():
            contract = {**self.metadata["edgequant"], **_PARTS.get(tag, {})}
            _write(temporary / f"{stem}_{tag}.tflite", content, {**self.metadata, "edgequant": contract})
    return str(folder), None


#: How the files of a SavedModel's folder differ from the request.
_PARTS: dict[str, dict[str, str]] = {
    "float32": {"head": "float", "ranges": "none", "io": "float"},
    "float16": {"head": "float", "ranges": "none", "io": "float"},
    "int8": {"head": "float", "ranges": "none", "io": "float"},
    "integer_quant": {"io": "float"},
    "full_integer_quant": {"head": "int8"},
}


def export_openvino(original: Callable[..., str], self: Exporter, *args: Any, **kwargs: Any) -> str:
    """``Exporter.export_openvino``, which inside an INT8 export of ours moves the folder into place when whole."""
    if active() is None:
        return original(self, *args, **kwargs)
    file = self.file
    folder = file.with_name(f"{file.stem}_int8_openvino_model")
    with whole(folder) as temporary:
        self.file = temporary.parent / file.name
        try:
            original(self, *args, **kwargs)
        finally:
            self.file = file
        (temporary / "metadata.json").write_text(json.dumps(self.metadata))  # for the runtime, which reads no YAML
    return f"{folder}{os.sep}"


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
    from ..heads.decode import InPixels
    from ..quantization import openvino
    from .heads import detection_head

    request = job.request
    head = detection_head(job.exporter.model)
    _prepare_head(job, im)
    if request.head == "int8" and head is not None:
        model = InPixels(model, (int(im.shape[2]), int(im.shape[3])), head.nc, getattr(head, "kpt_shape", None))
    float_model = original(model, im, None, dynamic, None, None, int8_detect, prefix)
    return openvino.quantize(float_model, calibration_dataset, request.head, calibration_dataset.get_length())


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
    )

    request, exporter = job.request, job.exporter
    contract: dict[str, Any] = {
        "schema": 1,
        "version": __version__,
        "head": request.head,
        "granularity": request.granularity,
        "ranges": request.ranges,
        "io": request.io,
        "layout": "NHWC" if request.profile.channels_last else "NCHW",
    }
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
    contract["boxes"] = "pixels" if in_pixels else "normalised"
    names = ["detections", "prototypes"] if has_masks(head) else ["detections"]
    if request.head == "int8":
        keep_all_cells(head)
        if request.profile.separate:
            names = separate_outputs(head)
    contract["outputs"] = [{"name": name} for name in names]
    if request.head == "int8" or not in_pixels:
        normalise_head(head, size)


def _calibrated(job: Job, model: nn.Module, image: torch.Tensor, loader: DataLoader, prefix: str) -> Calibrated:
    """Convert the exporter's model, and calibrate it."""
    from rich.progress import track
    from ultralytics.utils import LOGGER

    from .. import pipeline
    from ..conversion.litert import to_tflite
    from ..quantization import cells
    from ..quantization.graph import Graph
    from .heads import detection_head

    request = job.request
    _prepare_head(job, image)
    LOGGER.info(f"\n{prefix} converting with litert-torch...")
    content = to_tflite(model, image, request.profile.channels_last)
    images = _images(loader, image.shape[0], request.profile.channels_last)
    progress = track(images, f"calibrating ({request.ranges})", total=len(loader), transient=True)
    contract = job.exporter.metadata["edgequant"]
    described = contract.get("raw", contract)
    graph = Graph(content)
    if "outputs" in described:  # in the file's order
        described["outputs"] = [described["outputs"][position] for position in graph.output_order()]
    head = detection_head(job.exporter.model)
    if "raw" in contract:
        outputs = contract["raw"]["outputs"]
        logits = [i for i, output in enumerate(outputs) if output["name"] in {"scores", "visibility"}]
        return pipeline.calibrate(content, progress, request.ranges, logits, cells.of_raw(graph, outputs))
    if head is None:
        return pipeline.calibrate(content, progress, request.ranges)
    levels = [int(image.shape[2] // stride * (image.shape[3] // stride)) for stride in head.stride.int()]
    found = cells.of_decoded(graph, levels, head.nc)
    if found is None:
        LOGGER.warning(f"{prefix} the cells of this head were not found; ranges cover cells without objects, too.")
    return pipeline.calibrate(content, progress, request.ranges, cells=found)


def _images(loader: DataLoader, batch: int, channels_last: bool) -> Iterator[np.ndarray]:
    """The loader's images one batch at a time, float32 from 0 to 1; a short batch is filled by repeating."""
    for item in loader:
        images = item["img"].numpy().astype(np.float32) / 255
        images = np.resize(images, (batch, *images.shape[1:]))
        yield np.ascontiguousarray(images.transpose(0, 2, 3, 1)) if channels_last else images


def _write(path: Path, content: bytes, metadata: dict[str, Any]) -> None:
    """Write a ``.tflite`` file with its metadata appended as Ultralytics reads it."""
    with whole(path) as temporary:
        temporary.write_bytes(content)
        _append_metadata(temporary, metadata)


def _append_metadata(path: Path, metadata: dict[str, Any]) -> None:
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.json", json.dumps(metadata))


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
    _append_metadata(Path(compiled), metadata)
    return compiled
