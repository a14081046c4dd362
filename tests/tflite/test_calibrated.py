import functools

import numpy as np
import pytest

from yolo_edgequant.options import IO, Granularity, Head, RangeEstimator
from yolo_edgequant.runtime.interpreter import TFLite
from yolo_edgequant.tflite import interpreter, packing
from yolo_edgequant.tflite.calibrated import CalibratedGraph, calibrate
from yolo_edgequant.tflite.graph import Graph
from yolo_edgequant.tflite.ranges import estimate
from yolo_edgequant.tflite.recipe import Rule


@pytest.fixture(scope="module")
def calibrated(small, pictures):
    return calibrate(small, iter(pictures))


@pytest.fixture(scope="module")
def quantized(calibrated):
    """Each file once."""
    return functools.cache(lambda head, io: calibrated.quantize(head, Granularity.CHANNEL, io))


def outputs(content, image):
    """The first output as float, of an image that is quantized by the file's own parameters."""
    run = interpreter.run(content, [image])
    return run.tensors[0].values(run.outputs[0][0])


def float_operations(content):
    """Kinds of the operations that compute in float."""
    graph = Graph(content)
    return {
        op.kind
        for op in graph.operations
        if op.kind not in {"QUANTIZE", "DEQUANTIZE"} and any(graph.dtype(t) == "FLOAT32" for t in op.outputs)
    }


@pytest.fixture(scope="module")
def of_detector(graph, images):
    calibrated = calibrate(graph, iter(images))
    return {
        Head.INT8: calibrated.quantize(Head.INT8, Granularity.TENSOR, IO.INT8),
        Head.FLOAT: calibrated.quantize(Head.FLOAT, Granularity.CHANNEL, IO.INT8),
    }


@pytest.mark.parametrize(("head", "bound"), [(Head.FLOAT, 0.02), (Head.INT8, 0.06)])
def test_int8_agrees_with_float(of_detector, detector, images, head, bound):
    for image in images[:4]:
        expected, values = outputs(detector, image), outputs(of_detector[head], image)
        confident = expected[:, 4:].max(1)[0] > 0.25
        assert confident.any()
        assert np.abs(values - expected)[0, :4][:, confident].mean() < bound
        assert np.abs(values - expected)[0, 4:][:, confident].mean() < bound


def test_box_decoding_is_all_that_is_in_float(of_detector):
    assert float_operations(of_detector[Head.INT8]) == set()
    kinds = float_operations(of_detector[Head.FLOAT])
    assert {"SOFTMAX", "LOGISTIC"} <= kinds
    assert "TRANSPOSE" in kinds  # of the distributions, inside the expectation
    graph = Graph(of_detector[Head.FLOAT])
    floats = [op for op in graph.operations if op.kind == "CONV_2D" and graph.dtype(op.outputs[0]) == "FLOAT32"]
    assert len(floats) == 1, "only the expectation"


@pytest.mark.parametrize("io", list(IO))
@pytest.mark.parametrize("head", list(Head))
def test_ends_have_the_types_asked_for_the_same_values_and_their_constants_inside(quantized, pictures, io, head):
    content = quantized(head, io)
    graph = Graph(content)
    names = {"int8": "INT8", "uint8": "UINT8", "float": "FLOAT32"}
    assert graph.dtype(graph.inputs[0]) == names[io]
    assert graph.dtype(graph.outputs[0]) == ("FLOAT32" if head == Head.FLOAT else names[io])
    np.testing.assert_allclose(outputs(content, pictures[0]), outputs(quantized(head, IO.INT8), pictures[0]), atol=1e-6)
    packing.check_inside(content)


def test_the_input_scale_is_one_pixel_value(quantized):
    tensor = TFLite(quantized(Head.INT8, IO.INT8), 1).input
    assert tensor.scale == pytest.approx(1 / 255)
    assert tensor.zero_point == -128


@pytest.mark.parametrize(
    ("granularity", "counts"), [(Granularity.TENSOR, [1, 1, 1]), (Granularity.CHANNEL, [128, 256, 8])]
)
def test_scales_of_the_weights(calibrated, granularity, counts):
    model = packing.unpack(calibrated.quantize(Head.RAW, granularity, IO.INT8))
    kernels = [tensor for tensor in model.subgraphs[0].tensors if len(tensor.shape) == 4 and tensor.buffer]
    scales = [len(k.quantization.scale) for k in kernels if model.buffers[k.buffer].data is not None]
    assert scales == counts


def test_a_rule_keeps_its_operations_in_float(calibrated, small):
    operations = next(iter(small.layers().values()))
    rule = Rule("the first layer", True, operations)
    quantized = Graph(calibrated.quantize(Head.INT8, Granularity.CHANNEL, IO.INT8, in_float=rule))
    assert float_operations(quantized.content) == {op.kind for op in operations}
    (layer,) = (op for op in quantized.operations if quantized.dtype(op.outputs[0]) == "FLOAT32" and op.kernel)
    assert quantized.name(layer.outputs[0]) == small.name(operations[0].outputs[0])
    for one, other in zip(layer.inputs[1:], operations[0].inputs[1:], strict=True):  # no bias was corrected, either
        np.testing.assert_array_equal(quantized.constant(one), small.constant(other))


def test_the_estimator_is_the_one_it_was_calibrated_for(small, pictures):
    pictures = [10 * picture for picture in pictures]
    minmax, activation = (
        calibrate(small, pictures, estimator=estimator).ranges()
        for estimator in (RangeEstimator.MINMAX, RangeEstimator.ACTIVATION)
    )
    before_silu = [tensor for tensor in small.activations() if small.silu(tensor) is not None]
    assert len(before_silu) == 2
    assert all(minmax[tensor][0] < activation[tensor][0] for tensor in before_silu)


def test_trained_ranges_take_the_place_of_statistics(calibrated, small):
    ranges = calibrated.ranges()
    trained = CalibratedGraph(small, RangeEstimator.ACTIVATION, {}, frozenset(), dict(ranges))
    assert trained.ranges() == ranges
    plain = calibrated.quantize(Head.INT8, Granularity.CHANNEL, IO.INT8, correct_bias=False)
    assert trained.quantize(Head.INT8, Granularity.CHANNEL, IO.INT8) == plain, "their biases are not corrected"
    assert calibrated.quantize(Head.INT8, Granularity.CHANNEL, IO.INT8) != plain


def test_images_have_the_range_of_pixels_whatever_they_hold(small, pictures):
    dark = calibrate(small, [picture / 4 for picture in pictures])
    assert [dark.ranges()[tensor] for tensor in small.inputs] == [(0.0, 1.0)]
    assert estimate(RangeEstimator.MINMAX, small, dark.statistics)[small.inputs[0]][1] < 0.3
