"""A SavedModel's folder: upstream's TensorFlow export, replaced in an INT8 export of ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from ultralytics.engine.exporter import Exporter
from ultralytics.utils import YAML, colorstr

from ..contract import Contract
from ..files import atomic_write
from ..options import IO, Head
from ..pipeline.finish import finish
from ..pipeline.tflite import TFLiteBuild, write
from ..tflite import quantizer
from ..tflite.packing import constants_inside
from ..tflite.saved_model import to_saved_model
from ..upstream import compat, heads
from .calibration import search
from .exporter import job_of
from .litert import build_of


def export_saved_model(original: Callable[..., Any], self: Exporter, *args: Any, **kwargs: Any) -> tuple[str, None]:
    """``Exporter.export_saved_model``, which in an INT8 export of ours writes the same files, all of them right.

    The SavedModel stays in float, as upstream's is; its ``.tflite`` files come from one conversion and one calibration.
    """
    job = job_of(self)
    if job is None:
        return original(self, *args, **kwargs)
    compat.decode_in_pixels(self.model, self.metadata)
    folder = Path(str(self.file).replace(self.file.suffix, "_saved_model"))
    with atomic_write(folder) as temporary:
        self.args.simplify = True
        onnx_file = Path(self.export_onnx())
        try:
            to_saved_model(onnx_file, temporary)
        finally:
            onnx_file.unlink(missing_ok=True)
        YAML.save(temporary / "metadata.yaml", self.metadata)
        prefix = colorstr("TensorFlow SavedModel:")
        whole = build = build_of(self, self.model, replace(job.request, head=Head.INT8), prefix)
        if job.request.head == Head.FLOAT and _has_rotated_boxes(self.model):  # which integers do not turn
            build = build_of(self, self.model, job.request, prefix)

        def integer(part: TFLiteBuild, head: Head, io: IO) -> tuple[bytes, Contract]:
            part = replace(part, contract=replace(part.contract, head=head, io=io))
            with search(self, folder / "sensitivity.json") as how:
                return finish(part, job.request, how)

        content = build.calibrated.graph.content
        files = {
            "float32": (constants_inside(content), _in_float(build)),
            "float16": (quantizer.half_precision(content), _in_float(build)),
            "int8": (quantizer.weights_only(content), _in_float(build)),
            "integer_quant": integer(build, job.request.head, IO.FLOAT),
            "full_integer_quant": integer(whole, Head.INT8, job.request.io),
        }
        for tag, (model, contract) in files.items():
            write(temporary / f"{self.file.stem}_{tag}.tflite", model, contract, self.metadata)
    return str(folder), None


def _has_rotated_boxes(model: nn.Module) -> bool:
    head = heads.detection_head(model)
    return head is not None and heads.is_rotated(head)


def _in_float(build: TFLiteBuild) -> Contract:
    """The contract of a file that computes in float."""
    return replace(build.contract, head=Head.FLOAT, ranges="none", corrections="none", io=IO.FLOAT)
