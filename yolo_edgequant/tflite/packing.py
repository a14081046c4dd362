"""Writing a ``.tflite`` model so that every interpreter since TensorFlow 2.3 and every compiler reads it.

ai-edge-quantizer puts constants of 1024 bytes and more behind the FlatBuffer and notes where (``Buffer.offset``, a
schema field of 2023). Older programs find no data there. Packed here, all constants lie inside.

More that it leaves undone is done here. Constants are aligned. Operators are noted in the field that TensorFlow up to
2.3 reads, where those that the quantizer added would else be read as ADD. And ``min_runtime_version``, which the
converter wrote of the float model, is raised to what the 8 bits need.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_quantizer.utils import tfl_flatbuffer_utils

from ..errors import ConversionError
from .operators import WEIGHTS_INPUT

_IDENTIFIER = b"TFL3"

_LAST_OLD_CODE = 127  # PLACEHOLDER_FOR_GREATER_OP_CODES

_RUNTIME = b"min_runtime_version"  # name of an entry of the FlatBuffer's own metadata, 16 bytes long

#: The first TensorFlow that computes an operator in 8 bits, where that is later than 1.15. Its runtime_version.cc has
#: this by operator and version, but the quantizer leaves the versions as they were in float. FULLY_CONNECTED and
#: TRANSPOSE_CONV as tried: older ones give wrong outputs, or stop. ``hybrid``: activations in float, weights in 8 bits.
_SINCE = {
    ("RELU", "int8"): "2.1.0",
    ("TRANSPOSE_CONV", "int8"): "2.2.0",
    ("BATCH_MATMUL", "int8"): "2.3.0",
    ("RSQRT", "int8"): "2.5.0",
    ("SQUARED_DIFFERENCE", "int8"): "2.5.0",
    ("SQRT", "int8"): "2.21.0",
    ("FULLY_CONNECTED", "int8 per channel"): "2.10.0",
    ("DEPTHWISE_CONV_2D", "hybrid per channel"): "2.3.0",
    ("CONV_2D", "hybrid per channel"): "2.4.0",
    ("FULLY_CONNECTED", "hybrid per channel"): "2.17.0",
    ("TRANSPOSE_CONV", "hybrid per channel"): "2.17.0",
}
_EIGHT_BITS = "1.15.0"

#: TFLite's names of the built-in operators, by number.
KINDS = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}


def unpack(content: bytes) -> schema.ModelT:
    """The model in a file's bytes, to look at and to change."""
    return tfl_flatbuffer_utils.read_model(content)


def pack(model: schema.ModelT) -> bytes:
    """A file's bytes with all constants inside the FlatBuffer; the model's notes for old interpreters are set right."""
    for buffer in model.buffers:
        if isinstance(buffer.data, bytes):  # which would be packed one by one, an array at once
            buffer.data = np.frombuffer(buffer.data, np.uint8)
    for code in model.operatorCodes:
        code.deprecatedBuiltinCode = min(code.builtinCode, _LAST_OLD_CODE)
    for entry in model.metadata or []:
        if entry.name == _RUNTIME:
            known = bytes(bytearray(model.buffers[entry.buffer].data)).rstrip(b"\0").decode()
            oldest = max([known, *_needed(model)], key=_numbers).encode()
            model.buffers[entry.buffer].data = np.frombuffer(oldest.ljust(16, b"\0"), np.uint8)
    builder = _Builder(1 << 20)
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def constants_inside(content: bytes) -> bytes:
    """The same model as :func:`pack` writes it."""
    return pack(unpack(content))


def with_output_names(content: bytes, names: Sequence[str]) -> bytes:
    """The same model with other names of its outputs, in order, in the graph and in its signature."""
    model = unpack(content)
    subgraph = model.subgraphs[0]
    for tensor, name in zip(subgraph.outputs, names, strict=True):
        subgraph.tensors[tensor].name = name.encode()
        for signature in model.signatureDefs or []:
            for entry in signature.outputs:
                if entry.tensorIndex == tensor:
                    entry.name = name.encode()
    return pack(model)


def with_outputs(content: bytes, names: Sequence[str]) -> bytes:
    """A model that gives some of its tensors instead of its outputs, in this order."""
    model = unpack(content)
    subgraph = model.subgraphs[0]
    tensors = {tfl_flatbuffer_utils.get_tensor_name(tensor): index for index, tensor in enumerate(subgraph.tensors)}
    subgraph.outputs, model.signatureDefs = [tensors[name] for name in names], []
    return pack(model)


def check_inside(content: bytes) -> None:
    """Refuse a file that old interpreters and compilers cannot read.

    Raises:
        ConversionError: a constant lies behind the FlatBuffer.
    """
    if count := _outside(content):
        raise ConversionError(
            f"{count} constants lie behind the FlatBuffer, where no interpreter older than TensorFlow 2.14 looks; this "
            "is a defect of yolo_edgequant, please report it"
        )


class _Builder(flatbuffers.Builder):
    """Aligns the constants to 16 bytes, as TFLite's schema has it and flatbuffers in Python does not."""

    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> int:
        return super().StartVector(elemSize, numElems, 16 if elemSize == 1 else alignment)


def _needed(model: schema.ModelT) -> set[str]:
    """The first TensorFlow for each operator in 8 bits."""
    versions = set()
    for graph in model.subgraphs:
        for op in graph.operators:
            kind = KINDS[model.operatorCodes[op.opcodeIndex].builtinCode]
            if (arithmetic := _arithmetic(kind, [graph.tensors[t] for t in op.inputs if t >= 0])) is not None:
                versions.add(_SINCE.get((kind, arithmetic), _EIGHT_BITS))
    return versions


def _arithmetic(kind: str, inputs: list[schema.TensorT]) -> str | None:
    """What an operator computes in, by its inputs; None for float."""
    if not any(tensor.type == schema.TensorType.INT8 for tensor in inputs):
        return None
    if kind not in WEIGHTS_INPUT:
        return "int8"
    weights = inputs[WEIGHTS_INPUT[kind]]
    activations = inputs[2 if kind == "TRANSPOSE_CONV" else 0]
    scales = weights.quantization.scale
    per_channel = " per channel" if scales is not None and len(scales) > 1 else ""
    hybrid = activations.type == schema.TensorType.FLOAT32
    return f"hybrid{per_channel}" if hybrid else f"int8{per_channel}" if kind == "FULLY_CONNECTED" else "int8"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


def _outside(content: bytes) -> int:
    """How many constants lie behind the FlatBuffer."""
    model: Any = schema.Model.GetRootAs(content)
    return sum(model.Buffers(index).Offset() > 1 for index in range(model.BuffersLength()))
