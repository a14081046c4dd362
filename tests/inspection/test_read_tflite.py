import os
import time

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from yolo_edgequant.errors import UnsupportedModelError
from yolo_edgequant.inspection.read_tflite import LARGEST, one_line, read
from yolo_edgequant.runtime.interpreter import open_tflite
from yolo_edgequant.tflite import packing


@pytest.mark.parametrize("head", ["int8", "raw"])
def test_tensors_are_as_the_interpreter_has_them(files, head):
    model = read(files[head])
    interpreter, source, outputs = open_tflite(files[head], 1)
    details = {entry["index"]: entry for entry in interpreter.get_tensor_details()}
    for index, tensor in enumerate(model.tensors):
        if index not in details:  # a constant that no operator reads
            continue
        entry = details[index]
        assert tensor.shape == tuple(entry["shape"])
        assert np.dtype(tensor.dtype) == entry["dtype"]
        np.testing.assert_allclose(tensor.scales, entry["quantization_parameters"]["scales"])
        assert tensor.zero_points.tolist() == entry["quantization_parameters"]["zero_points"].tolist()
    assert model.inputs == (source["index"],)
    assert model.outputs == tuple(output["index"] for output in outputs)
    assert model.side == 160
    assert model.size == files[head].stat().st_size
    assert model.metadata["task"] == "detect"
    kinds = [op["op_name"] for op in interpreter._get_ops_details() if op["op_name"] != "DELEGATE"]
    assert [node.kind for node in model.nodes] == kinds


def test_small_constants_and_options_are_read(files):
    model = read(files["int8"])
    resize = next(node for node in model.nodes if node.kind == "RESIZE_NEAREST_NEIGHBOR")
    assert resize.options["half_pixel_centers"] is True
    assert resize.version == 3
    conv = next(node for node in model.nodes if node.kind == "CONV_2D")
    assert (conv.options["stride_h"], conv.options["fused_activation_function"]) == (2, "NONE")
    assert len(model.weights_of(conv).scales) == model.weights_of(conv).shape[0]
    reshape = next(node for node in model.nodes if node.kind == "RESHAPE")
    assert model.tensors[reshape.inputs[1]].values.tolist() == list(model.tensors[reshape.outputs[0]].shape)


def test_constants_behind_the_flatbuffer_are_counted(detector, tmp_path):
    model = packing.unpack(detector)
    buffer = next(b for b in model.buffers if b.data is not None and len(b.data) > 1024)
    size = len(buffer.data)
    buffer.data, buffer.offset, buffer.size = None, 64, size
    path = tmp_path / "outside.tflite"
    path.write_bytes(packing.pack(model) + bytes(size))
    assert read(path).outside == 1
    buffer.offset = 1 << 40
    path.write_bytes(packing.pack(model))
    with pytest.raises(UnsupportedModelError, match="behind the end of the file"):
        read(path)


def refused(path):
    started = time.perf_counter()
    with pytest.raises(UnsupportedModelError) as caught:
        read(path)
    assert time.perf_counter() - started < 5
    assert len(str(caught.value).splitlines()) == 1
    assert path.name in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("content", [b"", b"TFL3", b"text\n" * 100, bytes(8) + b"TFL3", b"\0\0\0\0TFL3", b"PK\3\4"])
def test_what_is_no_file_of_the_kind_is_refused(content, tmp_path):
    path = tmp_path / "strange.tflite"
    path.write_bytes(content)
    refused(path)


def test_cut_off_anywhere(files, tmp_path):
    """But for what hangs behind the FlatBuffer, every cut is noticed where a table or a constant is lost."""
    content, path = files["int8"].read_bytes(), tmp_path / "cut.tflite"
    outcomes = set()
    for length in range(0, len(content), len(content) // 60):
        path.write_bytes(content[:length])
        try:
            read(path)
            outcomes.add("read")
        except UnsupportedModelError:
            outcomes.add("refused")
        if length < len(content) // 2:
            assert "read" not in outcomes
    assert "refused" in outcomes


def test_a_file_of_2_gb_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "huge.tflite"
    with path.open("wb") as file:
        file.write(b"\x1c\0\0\0TFL3")
        file.truncate(2 << 30)
    assert path.stat().st_size > LARGEST
    assert "2,147,483,648 bytes" in refused(path)


@pytest.mark.parametrize("field", ["inputs", "outputs"])
@pytest.mark.parametrize("number", [10**6, -2])
def test_tensors_that_are_not_there(detector, tmp_path, field, number):
    model = packing.unpack(detector)
    setattr(model.subgraphs[0].operators[3], field, [number])
    path, builder = tmp_path / "astray.tflite", flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    assert "names a tensor that is none of" in refused(path)


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), -1.0])
def test_scales_that_are_none(detector, tmp_path, scale):
    model = packing.unpack(detector)
    model.subgraphs[0].tensors[5].quantization = schema.QuantizationParametersT()
    model.subgraphs[0].tensors[5].quantization.scale = [scale]
    path = tmp_path / "scale.tflite"
    path.write_bytes(packing.pack(model))
    assert "the scale of tensor '" in refused(path)


def test_tables_that_overlap_cost_no_time(detector, tmp_path):
    """Many tensors that share one long vector: the file is small, and reading it all would take for ever."""
    model = packing.unpack(detector)
    shared = schema.QuantizationParametersT()
    shared.scale = np.ones(200_000, np.float32)
    model.subgraphs[0].tensors[5].quantization = shared
    content = bytearray(packing.pack(model))
    tensors = schema.Model.GetRootAs(content).Subgraphs(0)
    table = tensors.Tensors(5)._tab
    target, vector = table.Pos, tensors._tab.Vector(tensors._tab.Offset(4))
    for index in range(tensors.TensorsLength()):
        at = vector + 4 * index
        if target > at:
            content[at : at + 4] = (target - at).to_bytes(4, "little")
    path = tmp_path / "overlap.tflite"
    path.write_bytes(content)
    assert "more than the file has bytes" in refused(path)


def test_a_folder_cannot_be_read_as_a_file(tmp_path):
    assert "cannot be read" in refused(tmp_path)


def test_names_are_one_line():
    assert one_line(b"two\nlines\x1b[31m \xff") == "two lines [31m �"
    assert one_line(None) == ""
    assert len(one_line("x" * 10_000)) == 200


def test_an_unprivileged_reader(tmp_path, monkeypatch):
    path = tmp_path / "denied.tflite"
    path.write_bytes(b"x")
    monkeypatch.setattr(type(path), "read_bytes", lambda _: (_ for _ in ()).throw(PermissionError(13, os.strerror(13))))
    assert "Permission denied" in refused(path)
