"""OpenVINO at work: the type that each layer really computes in on each device that is here, and what it computes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path

import numpy as np
import openvino as ov

from ..errors import CompilerError, UnsupportedModelError
from ..runtime.interpreter import Tensor
from .compiled import Compiled, Fallback, Heavy
from .model import Model

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


class Kept:
    """Runs a model on the CPU and keeps what its operations compute.

    Args:
        model: that was read from a file.
        wanted: tensors whose values to give, where that can be had.

    Attributes:
        input: what it takes.

    Raises:
        UnsupportedModelError: OpenVINO cannot read or compile it.
    """

    def __init__(self, model: Model, wanted: Collection[int]) -> None:
        try:
            network = ov.Core().read_model(str(model.path))
            names = {model.tensors[tensor].name: tensor for tensor in wanted}
            nodes = [op for op in network.get_ordered_ops() if op.get_friendly_name() in names and _gives_float(op)]
            network.add_outputs([op.output(0) for op in nodes])
            self._compiled = ov.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
            self.input = Tensor(tuple(self._compiled.inputs[0].shape), np.dtype(np.float32))
        except RuntimeError as error:
            raise UnsupportedModelError(f"'{model.path}' cannot be run: {str(error).splitlines()[0][:300]}") from error
        places = {result.get_node().input_value(0): position for position, result in enumerate(network.outputs)}
        self._positions = {names[op.get_friendly_name()]: places[op.output(0)] for op in nodes}

    def __call__(self, fitted: np.ndarray) -> dict[int, np.ndarray]:
        """Values of the wanted tensors for an image as stored, float32, by index."""
        results = self._compiled([fitted])
        return {tensor: results[position] for tensor, position in self._positions.items()}


def _gives_float(op: ov.Node) -> bool:
    """True for an operation with one result, float32, that can be an output of the model."""
    one = op.get_type_name() != "Result" and op.get_output_size() == 1
    return one and op.output(0).get_element_type() == ov.Type.f32
