"""A swapped model through real files."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from ultralytics import YOLO

import yolo_edgequant
from yolo_edgequant.demo.train import WEIGHTS
from yolo_edgequant.tflite.graph import Graph

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def swapped_checkpoint(tmp_path_factory):
    model = YOLO(WEIGHTS)
    yolo_edgequant.swap_activation(model, "relu6")
    file = tmp_path_factory.mktemp("swapped") / "relu6.pt"
    model.save(file)
    return file


def export(checkpoint, data, **arguments):
    return Path(YOLO(checkpoint).export(quantize=8, data=data, split="train", imgsz=160, **arguments))


def contract(file):
    if file.is_dir():
        return json.loads((file / "metadata.json").read_text())["edgequant"]
    return json.loads(zipfile.ZipFile(file).read("metadata.json"))["edgequant"]


@pytest.fixture(scope="module")
def raw(swapped_checkpoint, shapes_data):
    return export(swapped_checkpoint, shapes_data, format="tflite", head="raw", granularity="tensor")


def test_the_file_says_what_was_swapped(raw):
    assert contract(raw)["activation"] == "relu6"


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
def test_every_format_takes_a_swapped_model(tmp_path, shapes_data, format, activation):
    model = YOLO(WEIGHTS)
    yolo_edgequant.swap_activation(model, activation)
    model.save(tmp_path / "model.pt")
    data = {"data": shapes_data, "imgsz": 160, "plots": False, "verbose": False}
    expected = YOLO(tmp_path / "model.pt").val(**data).box.map
    file = export(tmp_path / "model.pt", shapes_data, format=format, head="float")
    found = file / "model_integer_quant.tflite" if format == "saved_model" else file
    assert contract(found)["activation"] == activation
    assert YOLO(file, task="detect").val(**data).box.map >= 0.85 * expected
