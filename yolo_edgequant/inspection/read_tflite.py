"""A ``.tflite`` file as a :class:`~.model.Model`.

Every length in the file is held against the file's size before it is used, so that a damaged one ends in one error and
takes no longer than a whole one.
"""

from __future__ import annotations

import importlib
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np

from .. import contract
from ..errors import MissingToolError, UnsupportedModelError
from .model import KEPT_BYTES, Model, Node, Tensor

LARGEST = 1 << 30  # bytes; YOLOv8x in float32 has a quarter

_IDENTIFIER = b"TFL3"
_MOST = 1 << 16  # of operators and tensors; YOLO26x has 2,000
_LONGEST_NAME = 200

_DAMAGE = (struct.error, IndexError, KeyError, ValueError, TypeError, AttributeError, OverflowError, AssertionError)


def read(path: Path) -> Model:
    """Read a file.

    Raises:
        UnsupportedModelError: it is no ``.tflite`` file, damaged, or larger than 1 GiB.
        MissingToolError: ai-edge-litert is not installed, which knows the format.
    """
    content = read_bytes(path)
    if content[4:8] != _IDENTIFIER:
        raise UnsupportedModelError(
            f"'{path}' is no .tflite file: it has {len(content)} bytes and does not begin as one; give a .tflite file, "
            "or an OpenVINO model's folder or .xml file"
        )
    try:
        schema: Any = importlib.import_module("ai_edge_litert.schema_py_generated")
    except ModuleNotFoundError as error:
        raise MissingToolError(
            "reading .tflite files needs ai-edge-litert; install it with: pip install 'yolo-edgequant[inspect]'"
        ) from error
    try:
        return _Reader(schema, content).model(path)
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UnsupportedModelError(f"'{path}' is damaged or cut off: {reason}; copy or export it again") from error


def read_bytes(path: Path) -> bytes:
    """What is in a file that somebody gave.

    Raises:
        UnsupportedModelError: it is larger than 1 GiB, or cannot be read.
    """
    try:
        if (size := path.stat().st_size) > LARGEST:
            raise UnsupportedModelError(f"'{path}' has {size:,} bytes; files of at most {LARGEST:,} are inspected")
        return path.read_bytes()
    except OSError as error:
        raise UnsupportedModelError(f"'{path}' cannot be read: {error.strerror}") from error


def one_line(name: bytes | str | None) -> str:
    """A name in a file, which may have any bytes, as text to print."""
    text = name.decode(errors="replace") if isinstance(name, bytes) else name or ""
    return " ".join("".join(c if c.isprintable() else " " for c in text[:_LONGEST_NAME]).split())


class _Reader:
    """Reads through the schema's tables.

    Args:
        schema: the module that flatc generated.
        content: the file.
    """

    def __init__(self, schema: Any, content: bytes) -> None:
        self._schema, self._content = schema, content
        self._left = 4 * len(content) + 4096  # bytes that may be read: tables of a damaged file may overlap
        self._kinds = _names(schema.BuiltinOperator)
        self._types = {code: name.lower() for code, name in _names(schema.TensorType).items()}
        self._options = _names(schema.BuiltinOptions)

    def model(self, path: Path) -> Model:
        """The model; a damaged one ends in one of :data:`_DAMAGE`."""
        model = self._schema.Model.GetRootAs(self._content)
        subgraphs = self._count(model.SubgraphsLength(), 4)
        if subgraphs == 0:
            raise ValueError("it has no graph")
        graph = model.Subgraphs(0)
        sizes, outside = self._buffers(model)
        written = set()
        operators = [graph.Operators(index) for index in range(self._count(graph.OperatorsLength(), 4))]
        tensor_count = self._count(graph.TensorsLength(), 4)
        nodes = []
        codes = [model.OperatorCodes(index) for index in range(self._count(model.OperatorCodesLength(), 4))]
        for index, operator in enumerate(operators):
            inputs = self._indices(operator.InputsLength(), operator.InputsAsNumpy, tensor_count, absent=True)
            outputs = self._indices(operator.OutputsLength(), operator.OutputsAsNumpy, tensor_count)
            written.update(outputs)
            code = codes[operator.OpcodeIndex()]
            number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
            kind = self._kinds.get(number, f"OPERATOR_{number}")
            nodes.append(Node(index, kind, int(code.Version()), inputs, outputs, self._options_of(operator)))
        inputs = self._indices(graph.InputsLength(), graph.InputsAsNumpy, tensor_count)
        outputs = self._indices(graph.OutputsLength(), graph.OutputsAsNumpy, tensor_count)
        variable = written | set(inputs)
        tensors = tuple(self._tensor(model, graph.Tensors(i), i not in variable, sizes) for i in range(tensor_count))
        return Model(
            path,
            "tflite",
            tensors,
            tuple(nodes),
            inputs,
            outputs,
            len(self._content),
            sum(sizes.values()),
            outside,
            subgraphs - 1,
            contract.metadata_of(path),
        )

    def _buffers(self, model: Any) -> tuple[dict[int, int], int]:
        """Bytes of each buffer, and how many lie behind the FlatBuffer."""
        sizes, outside = {}, 0
        for index in range(self._count(model.BuffersLength(), 4)):
            buffer = model.Buffers(index)
            sizes[index] = int(buffer.DataLength())
            if buffer.Offset() > 1:
                sizes[index], outside = int(buffer.Size()), outside + 1
                if buffer.Offset() + buffer.Size() > len(self._content):
                    raise ValueError(f"constant {index} lies at {buffer.Offset()}, behind the end of the file")
            elif sizes[index] > len(self._content):
                raise ValueError(f"constant {index} has {sizes[index]} bytes, more than the file")
        return sizes, outside

    def _tensor(self, model: Any, info: Any, free: bool, sizes: dict[int, int]) -> Tensor:
        name = one_line(info.Name())
        shape = self._numbers(info.ShapeLength(), info.ShapeAsNumpy, 4)
        if info.ShapeSignatureLength():
            shape = self._numbers(info.ShapeSignatureLength(), info.ShapeSignatureAsNumpy, 4)
        if len(shape) > 16:
            raise ValueError(f"tensor '{name[-60:]}' has {len(shape)} dimensions")
        dtype = self._types.get(info.Type(), f"type_{info.Type()}")
        scales, zero_points = np.empty(0), np.empty(0, np.int64)
        if (grid := info.Quantization()) is not None and grid.ScaleLength():
            with np.errstate(invalid="ignore"):  # a damaged one is no number
                scales = self._array(grid.ScaleLength(), grid.ScaleAsNumpy, 4).astype(np.float64)
            zero_points = np.zeros(len(scales), np.int64)
            if grid.ZeroPointLength():
                points = self._array(grid.ZeroPointLength(), grid.ZeroPointAsNumpy, 8)
                zero_points = np.broadcast_to(points, len(scales)) if len(points) == 1 else points
            if not np.isfinite(scales).all() or (scales < 0).any() or len(zero_points) != len(scales):
                raise ValueError(f"the scale of tensor '{name[-60:]}' is none")
        size = sizes[info.Buffer()]
        constant = free and size > 0
        values = self._values(model.Buffers(info.Buffer()), shape, dtype) if constant and size <= KEPT_BYTES else None
        levels = _levels(dtype) if len(scales) else 0
        return Tensor(
            name,
            tuple(int(side) for side in shape),
            dtype,
            scales,
            zero_points,
            constant,
            size if constant else 0,
            values,
            levels,
        )

    def _values(self, buffer: Any, shape: np.ndarray, dtype: str) -> np.ndarray | None:
        """A small constant as stored; None for types that NumPy has not, and for one that is not of its shape."""
        if dtype not in {"float32", "float16", "int8", "uint8", "int16", "int32", "int64"}:
            return None
        if buffer.Offset() > 1:
            raw = self._content[buffer.Offset() : buffer.Offset() + buffer.Size()]
        else:
            raw = self._array(buffer.DataLength(), buffer.DataAsNumpy, 1).tobytes()
        self._spend(len(raw))
        if len(raw) % np.dtype(dtype).itemsize:
            return None
        values = np.frombuffer(raw, dtype)
        return values.reshape(shape) if values.size == int(np.prod(shape.astype(object))) else None

    def _options_of(self, operator: Any) -> dict[str, Any]:
        """The numbers and texts among an operator's options, by the schema's names in snake case."""
        name, table = self._options.get(operator.BuiltinOptionsType()), operator.BuiltinOptions()
        if table is None or name in {None, "NONE"}:
            return {}
        reader = getattr(self._schema, name)()
        reader.Init(table.Bytes, table.Pos)
        options = {}
        for field in vars(getattr(self._schema, f"{name}T")()):
            accessor = field[0].upper() + field[1:]
            if hasattr(reader, f"{accessor}Length"):
                length = getattr(reader, f"{accessor}Length")()
                as_numpy = getattr(reader, f"{accessor}AsNumpy", None)
                if as_numpy is None:
                    continue  # of tables
                value: Any = self._numbers(length, as_numpy, 4).tolist()
            else:
                value = getattr(reader, accessor)()
            if isinstance(value, bytes):
                value = one_line(value)
            options[_snake(field)] = self._word(field, value)
        return options

    def _word(self, field: str, value: Any) -> Any:
        """The name of an option that is a number of one of the schema's enumerations."""
        enumeration = {"fusedActivationFunction": "ActivationFunctionType", "padding": "Padding"}.get(field)
        if enumeration is None:
            return value
        return _names(getattr(self._schema, enumeration)).get(value, str(value))

    def _count(self, length: int, size: int) -> int:
        """The length of a vector that the file has room for."""
        if not 0 <= length <= _MOST:
            raise ValueError(f"{length} entries in a list are more than {_MOST}")
        self._spend(length * size)
        return length

    def _array(self, length: int, as_numpy: Any, size: int) -> np.ndarray:
        """A vector of numbers; empty if there is none."""
        self._spend(length * size)
        return np.asarray(as_numpy()) if length else np.empty(0, np.int64)

    def _numbers(self, length: int, as_numpy: Any, size: int) -> np.ndarray:
        return self._array(self._count(length, 0), as_numpy, size)

    def _indices(self, length: int, as_numpy: Any, tensors: int, absent: bool = False) -> tuple[int, ...]:
        """Numbers of tensors, without those of absent inputs, which are -1."""
        numbers = [int(number) for number in self._numbers(length, as_numpy, 4)]
        if any(number < -absent or number >= tensors for number in numbers):
            raise ValueError(f"an operator or the graph names a tensor that is none of the {tensors}")
        return tuple(number for number in numbers if number >= 0)

    def _spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise ValueError("its tables hold more than the file has bytes")


def _levels(dtype: str) -> int:
    return {"int4": 15, "int8": 256, "uint8": 256, "int16": 1 << 16}.get(dtype, 0)


def _names(enumeration: type) -> dict[int, str]:
    return {code: name for name, code in vars(enumeration).items() if not name.startswith("_")}


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])([A-Z])", lambda match: "_" + match[1].lower(), name)
