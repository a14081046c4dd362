"""An OpenVINO model's ``.xml`` and ``.bin`` as a :class:`~.model.Model`, without OpenVINO.

OpenVINO has no tensors in 8 bits between its operations: a FakeQuantize says on which grid its input is rounded, and
weights are integers that are converted, shifted and scaled. Both are read as what they mean: a tensor with scales.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from .. import contract
from ..errors import UnsupportedModelError
from .model import KEPT_BYTES, Model, Node, Tensor
from .read_tflite import one_line, read_bytes

_MOST = 1 << 16  # of layers
_LARGEST_XML = 1 << 26

_TYPES = {
    **{"fp32": "float32", "f32": "float32", "fp16": "float16", "f16": "float16", "fp64": "float64", "f64": "float64"},
    **{f"{sign}{bits}": f"{word}{bits}" for sign, word in (("i", "int"), ("u", "uint")) for bits in (4, 8, 16, 32, 64)},
    **{"boolean": "bool", "bool": "bool", "bf16": "bfloat16"},
}
_NUMPY = {name for name in _TYPES.values() if name not in {"int4", "uint4", "bfloat16"}}


def read(path: Path) -> Model:
    """Read a model; its ``.bin`` lies beside the ``.xml``.

    Raises:
        UnsupportedModelError: it is no OpenVINO model, its ``.bin`` is missing, or one of both is damaged.
    """
    text = read_bytes(path)
    if len(text) > _LARGEST_XML:
        raise UnsupportedModelError(f"'{path}' is no OpenVINO model: it has {len(text):,} bytes")
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise UnsupportedModelError(f"'{path}' has no '{weights.name}' beside it, where its constants are")
    constants = read_bytes(weights)
    try:
        net = ElementTree.fromstring(text, ElementTree.XMLParser(target=_Elements()))
        if net.tag != "net":
            raise ValueError(f"its first element is {one_line(net.tag)!r}, not 'net'")
        return _Reader(constants).model(path, net, len(text))
    except (ElementTree.ParseError, ValueError, KeyError, IndexError, TypeError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UnsupportedModelError(f"'{path}' is no OpenVINO model, or damaged: {reason}; export it again") from error


class _Elements(ElementTree.TreeBuilder):
    """Elements of a document without a type: entities in one could grow without limit."""

    def doctype(self, *_: object) -> None:
        raise ValueError("it has a document type")


class _Reader:
    """Reads one model.

    Args:
        constants: what is in the ``.bin``.
    """

    def __init__(self, constants: bytes) -> None:
        self._constants = constants
        self._left = 4 * len(constants) + (1 << 20)  # bytes of constants that may be read: damaged ones may overlap
        self._tensors: list[Tensor] = []
        self._of_port: dict[tuple[str, str], int] = {}
        self._sizes: dict[int, int] = {}

    def model(self, path: Path, net: ElementTree.Element, size: int) -> Model:
        """The model; a damaged one ends in a KeyError, IndexError, TypeError or ValueError."""
        layers = {layer.get("id", ""): layer for layer in net.iterfind("layers/layer")}
        edges: dict[str, list[tuple[int, str, str]]] = {name: [] for name in layers}
        for edge in net.iterfind("edges/edge"):
            end = _attribute(edge, "to-layer")
            edges[end].append(
                (int(_attribute(edge, "to-port")), _attribute(edge, "from-layer"), _attribute(edge, "from-port"))
            )
        if not 0 < len(layers) <= _MOST:
            raise ValueError(f"it has {len(layers)} layers")
        inputs, outputs, nodes = [], [], []
        for name in _ordered(edges):
            layer = layers[name]
            kind = _attribute(layer, "type")
            sources = [self._of_port[origin, port] for _, origin, port in sorted(edges[name])]
            options = dict(data.attrib) if (data := layer.find("data")) is not None else {}
            results = self._outputs(layer)
            if kind == "Result":
                outputs += sources
            elif kind == "Parameter":
                inputs += results
            elif kind == "Const":
                self._constant(results[0], options)
            elif sources and results and all(self._tensors[source].constant for source in sources):
                self._folded(kind, sources, results, options)
            else:
                if kind == "FakeQuantize":
                    self._grid(sources, results[0], options)
                version = re.sub(r"\D", "", layer.get("version", "")) or "1"
                nodes.append(
                    Node(len(nodes), one_line(kind), int(version[:6]), tuple(sources), tuple(results), options)
                )
        metadata = contract.metadata_of(path.parent) if (path.parent / "metadata.json").is_file() else {}
        return Model(
            path,
            "openvino",
            tuple(self._tensors),
            tuple(nodes),
            tuple(inputs),
            tuple(outputs),
            size + len(self._constants),
            sum(self._sizes.values()),
            0,
            0,
            metadata,
        )

    def _outputs(self, layer: ElementTree.Element) -> list[int]:
        """New tensors for the ports of a layer."""
        name, results = one_line(layer.get("name", "")), []
        for port in layer.iterfind("output/port"):
            sides = [int(dim.text or "") for dim in port.iterfind("dim")]
            if len(sides) > 16:
                raise ValueError(f"'{name}' has {len(sides)} dimensions")
            title = name if not results else f"{name}:{len(results)}"
            dtype = _dtype(port.get("precision", "FP32"))
            self._tensors.append(Tensor(title, tuple(max(side, -1) for side in sides), dtype))
            results.append(len(self._tensors) - 1)
            self._of_port[layer.get("id", ""), _attribute(port, "id")] = results[-1]
        return results

    def _constant(self, tensor: int, options: Mapping[str, str]) -> None:
        offset, size = int(options["offset"]), int(options["size"])
        if not 0 <= offset <= offset + size <= len(self._constants):
            raise ValueError(f"a constant at {offset} of {size} bytes lies behind the end of the .bin")
        self._sizes[offset] = max(size, self._sizes.get(offset, 0))
        dtype, values = _dtype(options["element_type"]), None
        if size <= KEPT_BYTES and dtype in _NUMPY and size % np.dtype(dtype).itemsize == 0:
            self._left -= size
            if self._left < 0:
                raise ValueError("its constants hold more than the .bin has bytes")
            values = np.frombuffer(self._constants, dtype, size // np.dtype(dtype).itemsize, offset)
            shape = self._tensors[tensor].shape
            values = values.reshape(shape) if values.size == int(np.prod(np.array(shape, object))) else values
        self._tensors[tensor] = replace(self._tensors[tensor], dtype=dtype, constant=True, size=size, values=values)

    def _folded(self, kind: str, sources: list[int], results: list[int], options: Mapping[str, str]) -> None:
        """An operation on constants alone: its result is a constant, with the scales that it multiplies by."""
        largest = max((self._tensors[source] for source in sources), key=lambda tensor: tensor.size)
        others = [self._tensors[source] for source in sources if self._tensors[source] is not largest]
        scales, points, values = largest.scales, largest.zero_points, largest.values
        factor = others[0].dequantized() if others else None
        is_grid = largest.dtype in {"int8", "uint8", "int4", "uint4"}
        levels = largest.levels
        if kind == "Multiply" and is_grid and factor is not None and not len(scales):
            scales = _positive(factor.ravel())
            points = np.resize(points, len(scales)) if len(points) else np.zeros(len(scales), np.int64)
            levels = 16 if largest.dtype.endswith("4") else 256
        elif kind == "Subtract" and is_grid and factor is not None:
            points = np.rint(np.nan_to_num(factor.ravel())).astype(np.int64)
        elif kind == "FakeQuantize":
            scales, points, levels = self._ends(sources, options)
        for tensor in results:
            self._tensors[tensor] = replace(
                self._tensors[tensor],
                dtype=largest.dtype,
                constant=True,
                size=largest.size,
                values=values,
                scales=scales,
                zero_points=points,
                levels=levels,
            )

    def _grid(self, sources: list[int], tensor: int, options: Mapping[str, str]) -> None:
        scales, points, levels = self._ends(sources, options)
        self._tensors[tensor] = replace(self._tensors[tensor], scales=scales, zero_points=points, levels=levels)

    def _ends(self, sources: list[int], options: Mapping[str, str]) -> tuple[np.ndarray, np.ndarray, int]:
        """Scales, zero points (of unsigned numbers) and levels of a FakeQuantize."""
        levels = int(options["levels"])
        low, high = (self._tensors[source].dequantized() for source in sources[3:5])
        if low is None or high is None or not 2 <= levels <= 1 << 16:
            return np.empty(0), np.empty(0, np.int64), 0
        scales = _positive((high.ravel() - low.ravel()) / (levels - 1))
        with np.errstate(divide="ignore", invalid="ignore"):
            points = np.nan_to_num(-low.ravel() / scales, posinf=0, neginf=0).clip(-(1 << 31), 1 << 31)
        return scales, np.rint(points).astype(np.int64), levels


def _positive(scales: np.ndarray) -> np.ndarray:
    """Scales, none of them less than 0.

    Raises:
        ValueError: one is not finite.
    """
    if not np.isfinite(scales).all():
        raise ValueError("a scale is not a number")
    return np.abs(scales).astype(np.float64)


def _ordered(edges: Mapping[str, list[tuple[int, str, str]]]) -> list[str]:
    """Layers in an order in which each comes behind those that it reads.

    Raises:
        ValueError: there is none, since a layer reads its own results.
    """
    waiting = {name: len({origin for _, origin, _ in sources}) for name, sources in edges.items()}
    readers: dict[str, set[str]] = {name: set() for name in edges}
    for name, sources in edges.items():
        for _, origin, _ in sources:
            readers[origin].add(name)
    position = {name: index for index, name in enumerate(edges)}
    ready, ordered = [name for name, count in waiting.items() if count == 0], []
    while ready:
        name = ready.pop(0)
        ordered.append(name)
        for reader in sorted(readers[name], key=position.__getitem__):
            waiting[reader] -= 1
            if waiting[reader] == 0:
                ready.append(reader)
    if len(ordered) != len(edges):
        raise ValueError("its layers read each other's results")
    return ordered


def _attribute(element: ElementTree.Element, name: str) -> str:
    value = element.get(name)
    if value is None:
        raise ValueError(f"an element {one_line(element.tag)!r} has no {name!r}")
    return value


def _dtype(name: str) -> str:
    return _TYPES.get(name.lower(), one_line(name.lower()))
