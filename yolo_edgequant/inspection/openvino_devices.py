"""What OpenVINO's plugins make of a model: the type that each layer really computes in, on each device that is here."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import openvino as ov

from ..errors import CompilerError
from .compiled import Compiled, Fallback, Heavy

_INTEGERS = {"i8", "u8", "i4", "u4"}
_NO_WORK = {"Input", "Output", "Const", "Constant", "Result", "Parameter"}


def compile_model(path: Path) -> list[Compiled]:
    """Compile a model for each device that is here, and run it once on zeros.

    Args:
        path: of the ``.xml``.

    Returns:
        For each device its layers: those in 8 bits count as on the accelerator, and what they are in as `precisions`.

    Raises:
        CompilerError: OpenVINO cannot read the model, or compile it.
    """
    core = ov.Core()
    reports = []
    try:
        model = core.read_model(str(path))
        for device in core.available_devices:
            compiled = core.compile_model(model, device, {"PERF_COUNT": True})
            zeros = [np.zeros(tuple(i.shape), i.get_element_type().to_dtype()) for i in compiled.inputs]
            compiled(zeros)
            reports.append(_report(device, str(core.get_property(device, "FULL_DEVICE_NAME")), compiled))
    except RuntimeError as error:
        raise CompilerError(f"OpenVINO cannot compile '{path}': {str(error).splitlines()[0][:300]}") from error
    return reports


def _report(device: str, title: str, compiled: ov.CompiledModel) -> Compiled:
    precisions: Counter[str] = Counter()
    in_float: Counter[tuple[str, str]] = Counter()
    times: Counter[str] = Counter()
    for node in compiled.get_runtime_model().get_ops():
        info = node.get_rt_info()
        kind = _text(info, "layerType")
        if kind in _NO_WORK:
            continue
        precision = _text(info, "runtimePrecision")
        precisions[precision] += 1
        if precision not in _INTEGERS:
            in_float[kind, f"computes in {precision}"] += 1
        time = _text(info, "execTimeMcs")
        times[kind] += int(time) if time.isdecimal() else 0
    whole = sum(times.values())
    integers = sum(count for precision, count in precisions.items() if precision in _INTEGERS)
    return Compiled(
        compiler=f"OpenVINO {ov.__version__.partition('-')[0]}",
        device=f"{device} ({' '.join(title.split())})",
        accelerator=integers,
        cpu=sum(precisions.values()) - integers,
        precisions=dict(precisions.most_common()),
        fallbacks=tuple(Fallback(kind, reason, count) for (kind, reason), count in in_float.most_common(10)),
        heaviest=tuple(Heavy(kind, time / whole) for kind, time in times.most_common(5)) if whole else (),
    )


def _text(info: ov.RTMap, name: str) -> str:
    if name not in info:
        return "unknown"
    value = info[name]
    return str(value.astype(str) if hasattr(value, "astype") else value)
