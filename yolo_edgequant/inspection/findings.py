"""What is wrong with a file: each finding is one line with the cause and what to do. Nothing is run here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from ..options import Choice
from .head import Head, in_pixels, lost_scores, spread, stride_step
from .model import Model, Node

_INTEGERS = {"int8", "uint8", "int4", "uint4"}
_FLOATS = {"float32", "float16", "bfloat16", "float64"}

#: Scales in box decoding differ by some 10^3, constants included, in files that are right, and by 10^5 in pixels.
_WIDE = 2e4

_OPENVINO_MOVES = {
    *("Interpolate", "MaxPool", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Split", "VariadicSplit", "Slice"),
    *("StridedSlice", "Concat"),
}


class Level(Choice):
    """How bad a finding is."""

    ERROR = "error"  # the file does not find what its float model finds
    WARNING = "warning"  # some programs or devices fail, or read it wrong
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """Something to know of a file.

    Attributes:
        level: how bad it is.
        name: a word for programs.
        text: one line: the cause, with the figures, and the remedy.
        tensors: indices of the tensors that it is about.
    """

    level: Level
    name: str
    text: str
    tensors: tuple[int, ...] = ()


def findings(model: Model, head: Head) -> list[Finding]:
    """All that is to be said of a file, the worst first."""
    every = [
        *_decoding(model, head),
        *_types(model),
        *_arithmetic(model),
        *_shapes(model),
        *_old_interpreters(model),
    ]
    return sorted(every, key=lambda finding: list(Level).index(finding.level))


def _decoding(model: Model, head: Head) -> Iterator[Finding]:
    """The defect that makes an INT8 detector find nothing, or boxes that are off."""
    remedy = (
        "export it again with 'import yolo_edgequant', which decodes boxes in the unit square, in float or on the host"
    )
    lost, pixels, scales = lost_scores(model, head), in_pixels(model, head), spread(model, head)
    if lost:
        tensor, steps = min(lost, key=lambda entry: entry[1])
        yield Finding(
            Level.ERROR,
            "scores-lost",
            f"boxes in pixels (0 to {model.tensors[tensor].span:.0f}) and scores (0 to 1) share one 8-bit scale of "
            f"{model.tensors[tensor].scale:.3g}, on which scores have {steps:.1f} steps: {remedy}",
            tuple(tensor for tensor, _ in lost),
        )
    elif pixels:
        widest = max(pixels, key=lambda tensor: model.tensors[tensor].span)
        step = model.tensors[widest].scale or 0.0
        coarse = stride_step(model, head)
        cells = f", and cells by their stride in steps of up to {coarse:.1f} px" if coarse and coarse > step else ""
        ratio = f"; the scales in it differ by {scales.all:.0e}" if scales else ""
        yield Finding(
            Level.ERROR,
            "pixels",
            f"boxes are decoded in pixels in 8 bits (0 to {model.tensors[widest].span:.0f} in steps of {step:.1f} px"
            f"{cells}{ratio}), beside scores of 0 to 1: {remedy}",
            tuple(pixels),
        )
    elif scales and scales.all > _WIDE:
        yield Finding(
            Level.WARNING,
            "wide-scales",
            f"scales in box decoding differ by {scales.all:.0e} (10^3 in files that keep their accuracy): {remedy}",
            (scales.largest, scales.smallest),
        )


def _types(model: Model) -> Iterator[Finding]:
    """Inputs and outputs that programs read wrong."""
    inputs = {model.tensors[tensor].dtype for tensor in model.inputs}
    outputs = {model.tensors[tensor].dtype for tensor in model.outputs}
    name = model.path.name
    if model.family != "tflite" or not (inputs and outputs):
        return
    if bool(inputs & _FLOATS) != bool(outputs & _FLOATS):
        yield Finding(
            Level.WARNING,
            "mixed-types",
            f"it takes {', '.join(sorted(inputs))} and gives {', '.join(sorted(outputs))}: programs that look at one "
            "of both read the other wrong; export it with an io= that both have",
            (*model.inputs, *model.outputs),
        )
    elif name.endswith("_full_integer_quant.tflite") and inputs & _FLOATS:
        yield _misnamed(model, "_full_integer_quant", "integers", inputs)
    elif name.endswith("_integer_quant.tflite") and "_full_" not in name and inputs & _INTEGERS:
        yield _misnamed(model, "_integer_quant", "float32", inputs)


def _misnamed(model: Model, name: str, meaning: str, inputs: set[str]) -> Finding:
    return Finding(
        Level.WARNING,
        "misnamed",
        f"its name ends in '{name}', which means {meaning} in and out by Ultralytics' custom, and it takes "
        f"{', '.join(sorted(inputs))}: rename it, or export it with another io=",
        model.inputs,
    )


def _arithmetic(model: Model) -> Iterator[Finding]:
    """What is not computed in 8 bits."""
    layers = [(node, weights) for node in model.nodes if (weights := model.weights_of(node)) is not None]
    if not any(tensor.levels for tensor in model.tensors):
        yield Finding(
            Level.WARNING,
            "float",
            "nothing in it is quantized: export it with quantize=8 (int8=True in older releases) and data=",
        )
        return
    hybrid = [node for node, weights in layers if weights.dtype in _INTEGERS and _reads_float(model, node)]
    if hybrid:
        yield Finding(
            Level.WARNING,
            "hybrid",
            f"{len(hybrid)} of {len(layers)} layers have weights in 8 bits and compute in float, which integer "
            "accelerators refuse: export it with images to calibrate on (data=)",
            tuple(node.outputs[0] for node in hybrid),
        )
    in_float = [node for node in model.nodes if _is_float(model, node)] if model.family == "tflite" else []
    if in_float and not hybrid:
        kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(n.kind for n in in_float).most_common(3))
        yield Finding(
            Level.NOTE,
            "partly-float",
            f"{len(in_float)} of {len(model.nodes)} operators take or give float ({kinds}, ...): integer accelerators "
            "leave them to the CPU; format='tflite' with head='raw' or 'int8' has none",
            tuple(node.outputs[0] for node in in_float),
        )


def _shapes(model: Model) -> Iterator[Finding]:
    dynamic = tuple(tensor for tensor in model.computed if model.tensors[tensor].is_dynamic)
    if dynamic:
        yield Finding(
            Level.WARNING,
            "dynamic",
            f"{len(dynamic)} tensors have dynamic shapes, which accelerators do not take: export it without "
            "dynamic=True",
            dynamic,
        )
    if model.subgraphs:
        yield Finding(
            Level.NOTE, "subgraphs", f"it has {model.subgraphs} more graphs than the main one, which are not looked at"
        )


def _old_interpreters(model: Model) -> Iterator[Finding]:
    """What programs of some years ago cannot read; the versions are those of ``tflite/packing.py``."""
    if model.outside:
        yield Finding(
            Level.WARNING,
            "outside",
            f"{model.outside} constants lie behind the FlatBuffer, where no interpreter before TensorFlow 2.14, no "
            "Edge TPU compiler and no vela before 5.0 looks: export it again with 'import yolo_edgequant', which "
            "writes them inside",
        )
    rows = [
        node.outputs[0]
        for node in model.nodes
        if node.kind == "FULLY_CONNECTED"
        and (weights := model.weights_of(node)) is not None
        and weights.dtype == "int8"
        and len(weights.scales) > 1
    ]
    if rows:
        yield Finding(
            Level.NOTE,
            "rows",
            f"{len(rows)} FULLY_CONNECTED have a scale for each row, which interpreters before TensorFlow 2.10 compute "
            "wrong: export it with granularity='tensor' for those",
            tuple(rows),
        )


def _reads_float(model: Model, node: Node) -> bool:
    """True if what a layer reads has no grid; in OpenVINO one before mere moves counts."""
    source = node.inputs[2 if node.kind == "TRANSPOSE_CONV" and len(node.inputs) > 2 else 0]
    if model.family == "tflite":
        return model.tensors[source].dtype in _FLOATS
    pending, visited = [source], set()
    while pending:
        tensor = pending.pop()
        if model.tensors[tensor].levels:
            return False
        producer = model.producer.get(tensor)
        if producer is None or tensor in visited:
            continue
        visited.add(tensor)
        if producer.kind in _OPENVINO_MOVES:
            pending.extend(t for t in producer.inputs if not model.tensors[t].constant)
    return True


def _is_float(model: Model, node: Node) -> bool:
    """True for an operator that computes in float, or turns integers into it or back."""
    return any(model.tensors[tensor].dtype in _FLOATS for tensor in (*node.inputs[:1], *node.outputs))
