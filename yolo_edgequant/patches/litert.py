"""``.tflite`` files of an INT8 export of ours."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

from torch import nn
from ultralytics.engine.exporter import Exporter, NMSModel
from ultralytics.engine.model import Model
from ultralytics.utils import colorstr
from ultralytics.utils.export.tensorflow import tflite2edgetpu

from .. import contract as contracts
from ..contract import Contract
from ..errors import CompilerError, MissingToolError
from ..inspection import report, vela
from ..inspection.examine import examine
from ..log import LOGGER
from ..options import IO, Head, Target
from ..pipeline.finish import finish
from ..pipeline.tflite import TFLiteBuild, calibrate, convert, logits, write
from ..processes import return_memory
from ..targets.formats import Format, Request
from ..training.tflite_points import trained_graph
from ..upstream import export_head
from ..upstream.models import edgetpu_compiler
from ..verification.holdout import Holdout
from .calibration import Batches, search
from .exporter import job_of


def write_tflite(exporter: Exporter) -> str:
    """Write the ``.tflite`` file that an exporter's request asks for, and compile it for an Edge TPU or an Ethos-U.

    Args:
        exporter: of an export of ours, at the point where upstream would convert.
    """
    request = job_of(exporter).request
    for module in exporter.model.modules():
        if hasattr(module, "format"):
            module.format = Format.LITERT.value  # some of upstream's heads give OpenVINO something else
    model = NMSModel(exporter.model, exporter.args) if exporter.args.nms else exporter.model
    build = exporter.edgequant_build = build_of(exporter, model, request, colorstr("LiteRT:"))
    path = exporter.file.with_name(f"{exporter.file.stem}_{file_tag(request)}.tflite")
    with search(exporter, exporter.file.with_name(f"{exporter.file.stem}_sensitivity.json")) as how:
        content, contract = finish(build, request, how)
    write(path, content, contract, exporter.metadata)
    return_memory()
    exporter.edgequant_contract = contract
    if request.profile.format == Format.EDGETPU:
        return _compile_edgetpu(path, contract, exporter.metadata)
    if request.target in vela.CONFIGURATIONS:
        _compile_ethos_u(path, request.target)
    return str(path)


def export_and_keep(model: Model, **arguments: Any) -> tuple[Path, TFLiteBuild]:
    """Export a ``.tflite`` file, and keep what it was made of, so that it can be quantized in other ways.

    Args:
        model: float.
        arguments: Ultralytics' own, of ``export``, and our options.

    Returns:
        The file, and its build.
    """
    builds: list[TFLiteBuild] = []
    model.add_callback("on_export_end", lambda exporter: builds.append(exporter.edgequant_build))
    path = Path(model.export(**arguments))
    return path, builds[-1]


def build_of(exporter: Exporter, model: nn.Module, request: Request, prefix: str) -> TFLiteBuild:
    """Convert the exporter's model and calibrate it, or take the ranges that it was trained with."""
    job, image = job_of(exporter), exporter.im
    size = (int(image.shape[2]), int(image.shape[3]))
    contract = export_head.prepare(exporter.model, request, size, exporter.metadata, job.trained_for)
    loader = exporter.get_int8_calibration_dataloader(prefix)
    graph, contract = convert(model, image, contract)
    return_memory()
    if job.trained is not None:
        calibrated = trained_graph(job.trained, graph, tuple(image.shape), logits(contract))
        return TFLiteBuild(calibrated, contract, exporter.metadata, [], size)
    batches = Batches(loader, image.shape[0], contract.channels_last)
    images = Holdout(batches, len(batches))
    calibrated = calibrate(graph, contract, request, images)
    return_memory()
    return TFLiteBuild(calibrated, contract, exporter.metadata, images.images, size, images)


def file_tag(request: Request) -> str:
    """What a file's name says of its types, as upstream's names do: ``integer_quant`` is float at both ends."""
    if request.profile.format == Format.LITERT:
        return "int8"
    if request.io == IO.FLOAT:
        return "integer_quant"
    return f"{request.io}_input_quant" if request.head == Head.FLOAT else "full_integer_quant"


def _compile_edgetpu(path: Path, contract: Contract, facts: dict[str, Any]) -> str:
    """Compile a finished ``.tflite`` for the Edge TPU, with the compiler on PATH or the one that Ultralytics keeps.

    Raises:
        MissingToolError: there is no compiler; the ``.tflite`` stays.
        CompilerError: it failed; the ``.tflite`` stays.
    """
    if shutil.which("edgetpu_compiler") is None and edgetpu_compiler() is None:
        command = shlex.join(["edgetpu_compiler", "--search_delegate", path.name])
        raise MissingToolError(
            f"edgetpu_compiler is neither on PATH nor in Ultralytics' settings folder, so there is no Edge TPU file "
            f"yet; '{path}' is finished: on a machine with the compiler (https://coral.ai/docs/edgetpu/compiler) run: "
            f"{command}"
        )
    try:
        compiled = Path(tflite2edgetpu(tflite_file=path, output_dir=path.parent, prefix=colorstr("Edge TPU:")))
    except (subprocess.CalledProcessError, OSError) as error:
        raise CompilerError(f"edgetpu_compiler failed on '{path}', which is kept: {error}") from error
    if not compiled.is_file():
        raise CompilerError(f"edgetpu_compiler left no '{compiled}'; '{path}' is kept")
    contracts.append(compiled, contract, facts)
    return str(compiled)


def _compile_ethos_u(path: Path, target: Target) -> None:
    """Compile a finished ``.tflite`` with vela, where that is installed, and say what runs where.

    The compiled file lies beside the other, which stays the one to read: vela leaves no metadata.

    Raises:
        CompilerError: it failed; the ``.tflite`` stays.
    """
    try:
        vela.find()
    except MissingToolError as error:
        LOGGER.info(f"not compiled: {error}")
        return
    LOGGER.info("compiling with vela...")
    try:
        inspection = examine(path, target, compiling=True, keep=path.parent)
    except CompilerError as error:
        raise CompilerError(f"{error}; '{path}' is kept") from error
    LOGGER.info(report.as_text(inspection))
