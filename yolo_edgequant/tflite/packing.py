"""Writing a ``.tflite`` model so that every interpreter since TensorFlow 2.5 and every compiler reads it.

ai-edge-quantizer puts constants of 1024 bytes and more behind the FlatBuffer and notes where (``Buffer.offset``, a
schema field of 2023). Older programs find no data there. Packed here, all constants lie inside.
"""

from __future__ import annotations

from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema
from ai_edge_quantizer.utils import tfl_flatbuffer_utils

from ..errors import ConversionError

_IDENTIFIER = b"TFL3"


def unpack(content: bytes) -> schema.ModelT:
    """The model in a file's bytes, to look at and to change."""
    return tfl_flatbuffer_utils.read_model(content)


def pack(model: schema.ModelT) -> bytes:
    """A file's bytes with all constants inside the FlatBuffer."""
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def constants_inside(content: bytes) -> bytes:
    """The same model with all constants inside; `content` itself if they are."""
    return pack(unpack(content)) if _outside(content) else content


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


def _outside(content: bytes) -> int:
    """How many constants lie behind the FlatBuffer."""
    model: Any = schema.Model.GetRootAs(content)
    return sum(model.Buffers(index).Offset() > 1 for index in range(model.BuffersLength()))
