"""Small ``.tflite`` graphs made by hand, and a raw one cut out of the committed detector: nothing is converted."""

from __future__ import annotations

import copy

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from yolo_edgequant.contract import Contract, Output, Raw
from yolo_edgequant.tflite import packing
from yolo_edgequant.tflite.graph import Graph

STRIDES = (8, 16, 32)
NAMES = ("circle", "square", "triangle", "star")
RAW_OUTPUTS = tuple(Output(name, stride) for name in ("boxes", "scores") for stride in STRIDES)
MERGED_OUTPUTS = (Output("boxes"), Output("scores"))

_OPTIONS = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MUL": "MulOptions",
    "LEAKY_RELU": "LeakyReluOptions",
    "CONCATENATION": "ConcatenationOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "TRANSPOSE_CONV": "TransposeConvOptions",
}


class Network:
    """A float graph with one input; operations are added in execution order."""

    def __init__(self, *shape):
        self._model = schema.ModelT()
        self._model.version = 3
        self._model.buffers, self._model.operatorCodes = [schema.BufferT()], []
        self._graph = schema.SubGraphT()
        self._graph.name, self._graph.tensors, self._graph.operators = b"main", [], []
        self._model.subgraphs = [self._graph]
        self.input = self._tensor(shape, b"serving_default_args_0")
        self._graph.inputs = [self.input]

    def _tensor(self, shape, name, data=None, kind=schema.TensorType.FLOAT32):
        tensor = schema.TensorT()
        tensor.shape, tensor.name, tensor.type, tensor.hasRank = [int(n) for n in shape], name, kind, True
        tensor.buffer = 0
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data.tobytes(), np.uint8)
            tensor.buffer = len(self._model.buffers)
            self._model.buffers.append(buffer)
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def shape(self, tensor):
        return self._graph.tensors[tensor].shape

    def constant(self, values, dtype=np.float32):
        kind = schema.TensorType.FLOAT32 if dtype == np.float32 else schema.TensorType.INT32
        values = np.asarray(values, dtype)
        return self._tensor(values.shape, f"constant_{len(self._graph.tensors)}".encode(), values, kind)

    def add(self, kind, inputs, shape, version=1, **options):
        """Append an operation; its one output."""
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, kind)
        code.version = version
        self._model.operatorCodes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self._model.operatorCodes) - 1
        output = self._tensor(shape, f"{kind.lower()}_{len(self._graph.tensors)}".encode())
        operator.inputs, operator.outputs = list(inputs), [output]
        if kind in _OPTIONS:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, _OPTIONS[kind])
            operator.builtinOptions = getattr(schema, f"{_OPTIONS[kind]}T")()
            for name, value in options.items():
                setattr(operator.builtinOptions, name, value)
        self._graph.operators.append(operator)
        return output

    def conv(self, source, kernel, bias=None, activation="NONE", depthwise=False):
        """A convolution with stride 1 that keeps the size; the kernel is as TFLite has it."""
        kernel = np.asarray(kernel)
        channels = kernel.shape[3 if depthwise else 0]
        bias = np.zeros(channels) if bias is None else bias
        options = {"strideW": 1, "strideH": 1, "dilationWFactor": 1, "dilationHFactor": 1}
        options["fusedActivationFunction"] = getattr(schema.ActivationFunctionType, activation)
        if depthwise:
            options["depthMultiplier"] = 1
        kind = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
        inputs = (source, self.constant(kernel), self.constant(bias))
        return self.add(kind, inputs, (*self.shape(source)[:3], channels), **options)

    def silu(self, source):
        gate = self.add("LOGISTIC", (source,), self.shape(source))
        return self.add("MUL", (source, gate), self.shape(source))

    def max_pool(self, source):
        batch, height, width, channels = self.shape(source)
        sides = {"strideW": 2, "strideH": 2, "filterWidth": 2, "filterHeight": 2}
        return self.add("MAX_POOL_2D", (source,), (batch, height // 2, width // 2, channels), **sides)

    def content(self, *outputs):
        """The file, with these outputs."""
        model = copy.deepcopy(self._model)
        model.subgraphs[0].outputs = list(outputs)
        _sign(model)
        return packing.pack(model)


def _sign(model):
    """Give a model the signature that the converter gives it."""
    graph = model.subgraphs[0]
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
    signature.inputs, signature.outputs = [], []
    for entries, name, tensors in (
        (signature.inputs, "args", graph.inputs),
        (signature.outputs, "output", graph.outputs),
    ):
        for position, tensor in enumerate(tensors):
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = f"{name}_{position}".encode(), int(tensor)
            entries.append(entry)
    model.signatureDefs = [signature]


def raw_detector(content, arrangement="levels"):
    """The raw graph of the committed detector: cut behind its last convolutions, whose maps become rows of cells.

    Its outputs are those of :data:`RAW_OUTPUTS`, or of :data:`MERGED_OUTPUTS`. With ``grid`` the maps stay as they are.
    """
    graph = Graph(content)
    inside = {op.index for op in graph.decoding()}
    ends = [
        op.outputs[0]
        for op in graph.operations
        if op.index not in inside and any(reader.index in inside for reader in graph.consumers[op.outputs[0]])
    ]
    ends.sort(key=lambda tensor: (-graph.shape(tensor)[3], -graph.shape(tensor)[1]))  # boxes first, large maps first
    model = packing.unpack(content)
    main = model.subgraphs[0]
    reshape = next(main.operators[op.index].opcodeIndex for op in graph.operations if op.kind == "RESHAPE")
    main.operators = [op for index, op in enumerate(main.operators) if index not in inside]
    main.outputs = ends if arrangement == "grid" else []
    for tensor in ends if arrangement != "grid" else ():
        _, rows, columns, channels = graph.shape(tensor)
        wanted = np.array([1, rows * columns, channels], np.int32)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(wanted.tobytes(), np.uint8)
        model.buffers.append(buffer)
        for name, shape, kind, place in (
            ("shape", [3], schema.TensorType.INT32, len(model.buffers) - 1),
            ("cells", wanted.tolist(), schema.TensorType.FLOAT32, 0),
        ):
            made = copy.deepcopy(main.tensors[tensor])
            made.name, made.shape, made.type, made.buffer = made.name + f"_{name}".encode(), shape, kind, place
            main.tensors.append(made)
        operator = schema.OperatorT()
        operator.opcodeIndex = reshape
        operator.inputs, operator.outputs = [tensor, len(main.tensors) - 2], [len(main.tensors) - 1]
        main.operators.append(operator)
        main.outputs.append(len(main.tensors) - 1)
    if arrangement == "merged":
        join = next(
            op
            for op in main.operators
            if packing.KINDS[model.operatorCodes[op.opcodeIndex].builtinCode] == "CONCATENATION"
        )
        parts, main.outputs = main.outputs, []
        for levels in (parts[:3], parts[3:]):
            whole = copy.deepcopy(main.tensors[levels[0]])
            whole.name, whole.shape = (
                whole.name + b"_merged",
                [1, sum(main.tensors[t].shape[1] for t in levels), whole.shape[2]],
            )
            main.tensors.append(whole)
            operator = copy.deepcopy(join)
            operator.builtinOptions.axis = 1
            operator.inputs, operator.outputs = levels, [len(main.tensors) - 1]
            main.operators.append(operator)
            main.outputs.append(len(main.tensors) - 1)
    _sign(model)
    return packing.pack(model)


def contract(head="int8", arrangement="levels", cells_first=True, **more):
    """What a file of the committed detector, or of its raw graph, says of itself."""
    facts = {
        "task": "detect",
        "names": dict(enumerate(NAMES)),
        "stride": 32,
        "end2end": False,
        "nms": False,
        "kpt_shape": None,
        "head": head,
        "granularity": "channel",
        "ranges": "activation",
        "corrections": "bias",
        "io": "int8",
        "channels_last": True,
        "outputs": (Output("detections"),),
        "normalised": True,
    }
    if head == "raw":
        outputs = MERGED_OUTPUTS if arrangement == "merged" else RAW_OUTPUTS
        raw = Raw(cells_first, 16, arrangement=arrangement)
        facts |= {"outputs": outputs, "normalised": False, "strides": STRIDES, "raw": raw}
    return Contract(**facts | more)


def upstream(described, size=160):
    """Ultralytics' own metadata of such a file."""
    facts = {
        "description": "Ultralytics shapes model",
        "author": "Ultralytics",
        "date": "2026-01-01T00:00:00+00:00",
        "version": "8.4.190",
        "license": "AGPL-3.0 License (https://ultralytics.com/license)",
        "docs": "https://docs.ultralytics.com",
        "stride": described.stride,
        "task": described.task,
        "head": "Detect",
        "batch": 1,
        "imgsz": [size, size],
        "names": {str(index): name for index, name in described.names.items()},
        "args": {"batch": 1, "quantize": 8, "nms": described.nms},
        "channels": 3,
        "end2end": described.end2end,
    }
    if described.kpt_shape is not None:
        facts["kpt_shape"] = list(described.kpt_shape)
    return facts
