import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from yolo_edgequant import pipeline
from yolo_edgequant.tflite.graph import Graph


@pytest.fixture(scope="module")
def calibrated(detector, images):
    return pipeline.calibrate(detector, iter(images))


def run(content, image):
    """Outputs as float, quantised and dequantised by the file's own parameters."""
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    if source["dtype"] != np.float32:
        scale, zero = source["quantization"]
        image = np.round(image / scale + zero).astype(source["dtype"])
    interpreter.set_tensor(source["index"], image)
    interpreter.invoke()
    values = interpreter.get_tensor(target["index"])
    if target["dtype"] != np.float32:
        scale, zero = target["quantization"]
        values = (values.astype(np.float32) - zero) * scale
    return values


def float_operations(content):
    graph = Graph(content)
    return {
        op.kind
        for op in graph.operations
        if op.kind not in {"QUANTIZE", "DEQUANTIZE"} and any(graph.dtype(t) == "FLOAT32" for t in op.outputs)
    }


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize(("head", "bound"), [("float", 0.02), ("int8", 0.06)])
def test_int8_agrees_with_float(calibrated, detector, images, head, granularity, bound):
    content = calibrated.quantise(head, granularity, "int8")
    for image in images[:4]:
        expected, made = run(detector, image), run(content, image)
        confident = expected[:, 4:].max(1)[0] > 0.25
        assert confident.any()
        assert np.abs(made - expected)[0, :4][:, confident].mean() < bound
        assert np.abs(made - expected)[0, 4:][:, confident].mean() < bound


def test_float_head_is_all_that_is_in_float(calibrated):
    assert float_operations(calibrated.quantise("int8", "channel", "int8")) == set()
    kinds = float_operations(calibrated.quantise("float", "channel", "int8"))
    assert {"SOFTMAX", "LOGISTIC"} <= kinds
    assert "TRANSPOSE" in kinds  # of the distributions, inside the expectation
    graph = Graph(calibrated.quantise("float", "channel", "int8"))
    floats = [op for op in graph.operations if op.kind == "CONV_2D" and graph.dtype(op.outputs[0]) == "FLOAT32"]
    assert len(floats) == 1, "only the expectation"


@pytest.mark.parametrize("io", ["int8", "uint8", "float"])
@pytest.mark.parametrize("head", ["int8", "float"])
def test_ends_have_the_types_asked_for_and_the_same_values(calibrated, images, io, head):
    content = calibrated.quantise(head, "channel", io)
    graph = Graph(content)
    names = {"int8": "INT8", "uint8": "UINT8", "float": "FLOAT32"}
    assert graph.dtype(graph.inputs[0]) == names[io]
    assert graph.dtype(graph.outputs[0]) == ("FLOAT32" if head == "float" else names[io])
    np.testing.assert_allclose(
        run(content, images[0]), run(calibrated.quantise(head, "channel", "int8"), images[0]), atol=1e-6
    )


def test_the_input_scale_is_one_pixel_value(calibrated):
    interpreter = Interpreter(model_content=calibrated.quantise("int8", "channel", "int8"))
    scale, zero = interpreter.get_input_details()[0]["quantization"]
    assert scale == pytest.approx(1 / 255)
    assert zero == -128


def test_per_tensor_weights_have_one_scale(calibrated):
    def scales(granularity):
        interpreter = Interpreter(model_content=calibrated.quantise("int8", granularity, "int8"))
        interpreter.allocate_tensors()
        weights = [d for d in interpreter.get_tensor_details() if d["dtype"] == np.int8 and len(d["shape"]) == 4]
        return max(len(d["quantization_parameters"]["scales"]) for d in weights)

    assert scales("tensor") == 1
    assert scales("channel") > 1
