import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.graphs import Network
from yolo_edgequant.errors import ConversionError
from yolo_edgequant.options import IO, Granularity, Head
from yolo_edgequant.tflite import calibrated, interpreter, packing, quantizer
from yolo_edgequant.tflite.graph import Graph


@pytest.fixture(scope="module")
def behind(small, pictures):
    """The small graph as ai-edge-quantizer writes it: constants behind the FlatBuffer."""
    statistics = calibrated.calibrate(small, pictures)
    contents = []
    with pytest.MonkeyPatch.context() as patch:
        unpack = packing.unpack
        patch.setattr(quantizer.packing, "unpack", lambda content: contents.append(content) or unpack(content))
        statistics.quantize(Head.FLOAT, Granularity.CHANNEL, IO.INT8)
    return contents[-1]


def codes(content):
    return [(code.deprecatedBuiltinCode, code.builtinCode) for code in packing.unpack(content).operatorCodes]


def test_constants_move_inside_and_the_outputs_stay_bit_for_bit(behind, pictures):
    with pytest.raises(ConversionError, match=r"\d constants lie behind the FlatBuffer"):
        packing.check_inside(behind)
    inside = packing.constants_inside(behind)
    packing.check_inside(inside)
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(inside))  # as a program of before 2023 reads it
    kernels = [t for t in model.subgraphs[0].tensors if t.type == schema.TensorType.INT8 and t.shape[-1] == 128]
    assert {len(model.buffers[t.buffer].data) for t in kernels if t.buffer} >= {256 * 9 * 128}
    for before, after in zip(*(interpreter.run(c, pictures).outputs for c in (behind, inside)), strict=True):
        for one, other in zip(before, after, strict=True):
            np.testing.assert_array_equal(one, other)
    assert len(inside) < len(behind) + 1000
    assert packing.constants_inside(inside) == inside


def test_constants_are_aligned_as_the_schema_asks(behind):
    model = schema.Model.GetRootAs(packing.constants_inside(behind))
    buffers = [model.Buffers(index) for index in range(model.BuffersLength())]
    starts = [buffer._tab.Vector(buffer._tab.Offset(4)) for buffer in buffers if buffer.DataLength()]
    assert len(starts) == 6, "kernels and biases"
    assert not any(start % 16 for start in starts)


def test_a_large_model_is_packed_at_once_and_not_byte_by_byte():
    network = Network(1, 4, 4, 3)
    content = network.content(network.conv(network.input, np.ones((4000, 3, 3, 3))))
    model = packing.unpack(content)
    for buffer in model.buffers:
        buffer.data = None if buffer.data is None else bytes(buffer.data)  # as it comes from behind the FlatBuffer
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing._Builder, "PrependUint8", lambda self, value: calls.append(value))
        assert len(packing.pack(model)) > 4000 * 27 * 4
    assert not calls


def test_operators_can_be_told_apart_by_interpreters_of_before_2_4(behind):
    """They read the old field alone, where what the quantizer adds is 0, an ADD, and stop."""
    assert (0, schema.BuiltinOperator.DEQUANTIZE) in codes(behind)
    for old, new in codes(packing.constants_inside(behind)):
        assert old == new


def test_new_operators_are_marked_as_such_in_the_old_field():
    network = Network(1, 4, 4, 3)
    content = network.content(network.add("GELU", (network.input,), (1, 4, 4, 3)))
    assert codes(content) == [(127, schema.BuiltinOperator.GELU)]
    assert [op.kind for op in Graph(content).operations] == ["GELU"]


def with_runtime(content, version):
    """The file with a note of the oldest TensorFlow, as the converter makes it."""
    model = packing.unpack(content)
    entry, buffer = schema.MetadataT(), schema.BufferT()
    entry.name, entry.buffer = b"min_runtime_version", len(model.buffers)
    buffer.data = np.frombuffer(version.encode().ljust(16, b"\0"), np.uint8)
    model.buffers.append(buffer)
    model.metadata = [entry]
    return packing.pack(model)


def runtime(content):
    model = packing.unpack(content)
    (entry,) = (entry for entry in model.metadata if entry.name == b"min_runtime_version")
    data = bytes(bytearray(model.buffers[entry.buffer].data))
    assert len(data) == 16
    return data.rstrip(b"\0").decode()


def layer(kind):
    """One layer with trained weights, of RELU the layer in front of it."""
    random = np.random.default_rng(0)
    network = Network(1, 4, 4, 8)
    if kind == "FULLY_CONNECTED":
        flat = network.add("RESHAPE", (network.input, network.constant([1, 128], np.int32)), (1, 128))
        weights = network.constant(random.normal(0, 1, (16, 128)))
        return network.content(network.add(kind, (flat, weights, network.constant(np.zeros(16))), (1, 16)))
    if kind == "DEPTHWISE_CONV_2D":
        return network.content(network.conv(network.input, random.normal(0, 1, (1, 3, 3, 8)), depthwise=True))
    if kind == "TRANSPOSE_CONV":
        weights, bias = network.constant(random.normal(0, 1, (16, 2, 2, 8))), network.constant(np.zeros(16))
        inputs = (network.constant([1, 8, 8, 16], np.int32), weights, network.input, bias)
        return network.content(network.add(kind, inputs, (1, 8, 8, 16), 3, strideW=2, strideH=2))
    if kind == "RELU":
        source = network.conv(network.input, random.normal(0, 1, (8, 3, 3, 8)))
        return network.content(network.add(kind, (source,), network.shape(source)))
    return network.content(network.conv(network.input, random.normal(0, 1, (16, 3, 3, 8))))


def integers(content, granularity):
    images = list(np.random.default_rng(0).random((2, 1, 4, 4, 8), np.float32))
    return calibrated.calibrate(Graph(content), images).quantize(Head.RAW, granularity, IO.INT8)


@pytest.mark.parametrize(
    ("kind", "quantize", "oldest"),
    [
        ("CONV_2D", lambda c: c, "1.5.0"),
        ("CONV_2D", lambda c: integers(c, Granularity.CHANNEL), "1.15.0"),
        ("RELU", lambda c: integers(c, Granularity.TENSOR), "2.1.0"),
        ("TRANSPOSE_CONV", lambda c: integers(c, Granularity.CHANNEL), "2.2.0"),
        ("FULLY_CONNECTED", lambda c: integers(c, Granularity.TENSOR), "1.15.0"),
        ("FULLY_CONNECTED", lambda c: integers(c, Granularity.CHANNEL), "2.10.0"),
        ("CONV_2D", quantizer.weights_only, "2.4.0"),
        ("DEPTHWISE_CONV_2D", quantizer.weights_only, "2.3.0"),
        ("FULLY_CONNECTED", quantizer.weights_only, "2.17.0"),
        ("TRANSPOSE_CONV", quantizer.weights_only, "2.17.0"),
    ],
)
def test_the_oldest_tensorflow_is_the_one_that_8_bits_need(kind, quantize, oldest):
    """As tried with TensorFlow 2.2 to 2.17: what is older stops, or computes something else."""
    assert runtime(quantize(with_runtime(layer(kind), "1.5.0"))) == oldest


def test_what_the_float_model_needs_is_kept():
    content = with_runtime(layer("CONV_2D"), "2.12.0")
    assert runtime(integers(content, Granularity.CHANNEL)) == "2.12.0"
    assert runtime(quantizer.weights_only(with_runtime(layer("CONV_2D"), "2.3.0"))) == "2.4.0", "not by the alphabet"
    assert runtime(quantizer.weights_only(with_runtime(layer("FULLY_CONNECTED"), "2.3.0"))) == "2.17.0"


def test_the_detectors_file_needs_what_its_float_graph_needs(detector):
    assert runtime(packing.constants_inside(detector)) == "2.3.0", "of RESIZE_NEAREST_NEIGHBOR, as the converter has it"


def test_outputs_have_other_names_and_the_same_values(pictures):
    random = np.random.default_rng(0)
    network = Network(1, 16, 16, 3)
    first = network.conv(network.input, random.normal(0, 1, (4, 3, 3, 3)))
    second = network.conv(first, random.normal(0, 1, (2, 3, 3, 4)))
    content = network.content(second, first)
    named = packing.with_output_names(content, ["boxes_8", "scores_8"])
    packing.check_inside(named)
    before, after = Graph(content), Graph(named)
    assert [after.name(tensor) for tensor in after.outputs] == ["boxes_8", "scores_8"]
    assert (after.outputs, after.operations) == (before.outputs, before.operations)
    others = set(range(len(packing.unpack(content).subgraphs[0].tensors))) - set(after.outputs)
    assert all(after.name(tensor) == before.name(tensor) for tensor in others)
    (signature,) = packing.unpack(named).signatureDefs
    names = {entry.name: entry.tensorIndex for entry in signature.outputs}
    assert names == {b"boxes_8": second, b"scores_8": first}
    assert [entry.name for entry in signature.inputs] == [b"args_0"]
    for one, other in zip(*(interpreter.run(c, pictures).outputs for c in (content, named)), strict=True):
        for values, same in zip(one, other, strict=True):
            np.testing.assert_array_equal(values, same)


@pytest.mark.parametrize("names", [["boxes_8"], ["boxes_8", "scores_8", "angle_8"]])
def test_each_output_has_a_name(names):
    network = Network(1, 4, 4, 3)
    first = network.conv(network.input, np.ones((4, 3, 3, 3)))
    content = network.content(first, network.conv(first, np.ones((4, 3, 3, 4))))
    with pytest.raises(ValueError, match="zip"):
        packing.with_output_names(content, names)


def test_inner_tensors_can_be_the_outputs(small, pictures):
    inner = small.operations[0].outputs[0]
    run = interpreter.run(packing.with_outputs(small.content, [small.name(inner)]), pictures[:1])
    np.testing.assert_array_equal(run.outputs[0][0], interpreter.activations(small, pictures[0])[inner])
