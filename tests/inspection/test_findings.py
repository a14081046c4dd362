import shutil

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.graphs import Network
from tests.inspection.conftest import rounded
from yolo_edgequant.inspection.findings import Level, findings
from yolo_edgequant.inspection.head import Head
from yolo_edgequant.inspection.reading import open_model
from yolo_edgequant.tflite import packing


def named(path):
    model = open_model(path)
    entries = findings(model, Head.of(model))
    for entry in entries:
        assert len(entry.text.splitlines()) == 1
        assert ":" in entry.text or entry.level == Level.NOTE, "a cause and a remedy"
    return {entry.name: entry for entry in entries}


@pytest.mark.parametrize("head", ["int8", "raw"])
def test_ours_pass(files, head):
    assert named(files[head]) == {}


def test_boxes_and_scores_on_one_scale(decoder):
    (finding,) = named(decoder(0.05, 0.25, 0.25)).values()
    assert (finding.level, finding.name) == (Level.ERROR, "scores-lost")
    assert "boxes in pixels (0 to 64) and scores (0 to 1) share one 8-bit scale of 0.25" in finding.text
    assert "scores have 4.0 steps" in finding.text
    assert "export it again with 'import yolo_edgequant'" in finding.text


def test_boxes_in_pixels_that_are_normalized_at_the_end(decoder):
    (finding,) = named(decoder(0.05, 0.25, 0.0039)).values()
    assert (finding.level, finding.name) == (Level.ERROR, "pixels")
    assert "0 to 64 in steps of 0.2 px, and cells by their stride in steps of up to 3.2 px" in finding.text


def test_scales_that_are_far_apart(decoder):
    assert named(decoder(0.05, 1e-6, 0.03))["wide-scales"].level == Level.WARNING


def edited(source, target, change):
    model = packing.unpack(source.read_bytes())
    change(model, model.subgraphs[0])
    target.write_bytes(packing.pack(model))
    return target


def test_input_and_output_of_different_kinds(files, tmp_path):
    def float_output(model, graph):
        graph.tensors[graph.outputs[0]].type = schema.TensorType.FLOAT32
        graph.tensors[graph.outputs[0]].quantization = None

    finding = named(edited(files["int8"], tmp_path / "mixed.tflite", float_output))["mixed-types"]
    assert "takes int8 and gives float32" in finding.text


def test_names_that_promise_another_type(files, float_file, tmp_path):
    integers = shutil.copy(files["int8"], tmp_path / "a_integer_quant.tflite")
    floats = shutil.copy(float_file, tmp_path / "a_full_integer_quant.tflite")
    assert "takes int8" in named(integers)["misnamed"].text
    assert "takes float32" in named(floats)["misnamed"].text
    assert named(shutil.copy(files["int8"], tmp_path / "a_full_integer_quant.tflite")) == {}


def test_nothing_quantized(float_file):
    assert set(named(float_file)) == {"float"}


def test_hybrid_layers(float_file, tmp_path):
    def weights(model, graph):
        for op in graph.operators:
            if packing.KINDS[model.operatorCodes[op.opcodeIndex].builtinCode] == "CONV_2D":
                tensor = graph.tensors[op.inputs[1]]
                tensor.type, tensor.quantization = schema.TensorType.INT8, schema.QuantizationParametersT()
                tensor.quantization.scale, tensor.quantization.zeroPoint = [0.1], [0]

    finding = named(edited(float_file, tmp_path / "hybrid.tflite", weights))["hybrid"]
    assert "weights in 8 bits and compute in float" in finding.text


def test_some_operators_in_float(files, tmp_path):
    def last(model, graph):
        for tensor in graph.operators[-1].outputs:
            graph.tensors[tensor].type = schema.TensorType.FLOAT32

    entries = named(edited(files["int8"], tmp_path / "partly.tflite", last))
    assert entries["partly-float"].text.startswith("1 of ")


def test_dynamic_shapes(files, tmp_path):
    def open_batch(_, graph):
        graph.tensors[graph.inputs[0]].shapeSignature = [-1, 160, 160, 3]

    assert "1 tensors" in named(edited(files["int8"], tmp_path / "dynamic.tflite", open_batch))["dynamic"].text


def test_constants_behind_the_flatbuffer(files, tmp_path):
    path = tmp_path / "outside.tflite"

    def move(model, _):
        buffer = next(b for b in model.buffers if b.data is not None and len(b.data) > 1024)
        buffer.size, buffer.offset, buffer.data = len(buffer.data), 64, None

    finding = named(edited(files["int8"], path, move))["outside"]
    assert "TensorFlow 2.14" in finding.text


def test_rows_with_scales_of_their_own(tmp_path):
    network = Network(1, 8)
    weights = network.constant(np.ones((4, 8)))
    output = network.add("FULLY_CONNECTED", (network.input, weights), (1, 4))
    path = tmp_path / "rows.tflite"
    path.write_bytes(rounded(network.content(output), {}))
    assert named(path) == {}

    def per_row(_, graph):
        grid = graph.tensors[weights].quantization
        grid.scale, grid.zeroPoint = [0.1] * 4, [0] * 4

    assert "before TensorFlow 2.10" in named(edited(path, path, per_row))["rows"].text


def test_the_worst_comes_first(decoder, tmp_path):
    path = shutil.copy(decoder(0.05, 0.25, 0.25), tmp_path / "a_integer_quant.tflite")
    model = open_model(path)
    assert [f.level for f in findings(model, Head.of(model))] == [Level.ERROR, Level.WARNING]


def test_openvino_has_grids_and_is_not_hybrid(openvino_folder):
    assert named(openvino_folder) == {}
