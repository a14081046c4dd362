"""A model with other activations through real files of every format."""

from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from ultralytics import YOLO

import yolo_edgequant
from yolo_edgequant.contract import read
from yolo_edgequant.demo.train import WEIGHTS
from yolo_edgequant.tflite.graph import Graph

pytestmark = pytest.mark.export


def swapped(activation, folder):
    model = YOLO(WEIGHTS)
    yolo_edgequant.swap_activation(model, activation)
    model.save(folder / "model.pt")
    return folder / "model.pt"


@pytest.fixture(scope="module")
def raw(export, shapes_data, tmp_path_factory):
    checkpoint = swapped("relu6", tmp_path_factory.mktemp("swapped"))
    return export(checkpoint, shapes_data, format="tflite", head="raw", granularity="tensor")


def test_the_file_says_what_was_swapped(raw):
    assert read(raw).activation == "relu6"


def test_relu6_is_part_of_the_convolutions(raw):
    kinds = {op.kind for op in Graph(raw.read_bytes()).operations}
    assert not kinds & {"LOGISTIC", "MUL", "RELU6", "MINIMUM", "DEQUANTIZE"}


def test_ranges_end_where_relu6_does(raw):
    """Of the 63 convolutions 57 end in ReLU6: their 8 bits cover nothing below 0 or above 6."""
    graph = Graph(raw.read_bytes())
    interpreter = Interpreter(model_path=str(raw), experimental_preserve_all_tensors=True)
    details = {d["index"]: d["quantization"] for d in interpreter.get_tensor_details()}
    convolutions = [details[op.outputs[0]] for op in graph.operations if op.kind == "CONV_2D"]
    lows, highs = (np.array([scale * (end - zero) for scale, zero in convolutions]) for end in (-128, 127))
    clipped = lows == 0
    assert clipped.sum() == 57
    assert len(convolutions) == 63
    assert highs[clipped].max() <= 6 + 1e-4
    assert highs[clipped].max() > 5, "some reach the end"


@pytest.mark.parametrize(
    ("format", "activation"),
    [("litert", "relu6"), ("openvino", "relu6"), ("saved_model", "relu6"), ("litert", "leaky_relu")],
)
def test_every_format_takes_a_swapped_model(tmp_path, export, score, shapes_data, format, activation):
    checkpoint = swapped(activation, tmp_path)
    file = export(checkpoint, shapes_data, format=format, head="float")
    holds = file / "model_integer_quant.tflite" if format == "saved_model" else Path(file)
    assert read(holds).activation == activation
    assert score(file, shapes_data) >= 0.85 * score(checkpoint, shapes_data)
