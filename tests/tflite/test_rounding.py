import numpy as np
import pytest

from yolo_edgequant.int8 import LARGEST_WEIGHT
from yolo_edgequant.options import IO, Granularity, Head
from yolo_edgequant.tflite import calibrated as calibration
from yolo_edgequant.tflite import interpreter, rounding
from yolo_edgequant.tflite.graph import Graph

RANDOM = np.random.default_rng(0)


def layers(graph):
    return [op for op in graph.operations if graph.bias(op) is not None]


@pytest.fixture(scope="module")
def calibrated(small, pictures):
    return calibration.calibrate(small, iter(pictures), moments=True)


@pytest.fixture(scope="module", params=list(Granularity))
def rounded(request, calibrated):
    """The layers, and the axes of a kernel that share a scale."""
    found = rounding.round_layers(calibrated.graph, calibrated.statistics, calibrated.ranges(), request.param)
    return found, None if request.param == Granularity.TENSOR else (1, 2, 3)


def test_alone_a_weight_goes_to_the_nearest_step():
    """Inputs that have nothing to do with each other cannot make up for each other."""
    weights, steps = RANDOM.normal(0, 1, (2, 5, 30)), np.full((2, 5, 30), 0.1)
    covariance = np.stack([np.diag(RANDOM.uniform(0.1, 9, 30)) for _ in range(2)])
    nearest = np.clip(np.round(weights / steps), -LARGEST_WEIGHT, LARGEST_WEIGHT) * steps
    np.testing.assert_allclose(rounding.compensated(weights, steps, covariance), nearest)


def test_of_two_inputs_that_are_one_the_second_takes_what_the_first_leaves():
    covariance = np.ones((1, 2, 2)) + 1e-6 * np.eye(2)
    got = rounding.compensated(np.array([[[0.4, 0.4]]]), np.ones((1, 1, 2)), covariance)
    assert got.sum() == 1  # and not 0


@pytest.mark.parametrize("inputs", [40, 300])
def test_no_other_order_of_work_gives_another_result(inputs, monkeypatch):
    """Moving the rest at once or weight by weight is the same, but for time."""
    samples = RANDOM.normal(0, 1, (500, inputs)) @ RANDOM.normal(0, 1, (inputs, inputs))
    covariance, weights = np.cov(samples.T)[None], RANDOM.normal(0, 1, (1, 4, inputs))
    steps = np.full(weights.shape, 0.05)
    at_once = rounding.compensated(weights, steps, covariance)
    monkeypatch.setattr(rounding, "_AT_ONCE", 1)
    np.testing.assert_allclose(rounding.compensated(weights, steps, covariance), at_once)


def test_dead_inputs_do_no_harm():
    covariance = np.zeros((1, 3, 3))
    got = rounding.compensated(np.array([[[0.4, 0.6, -1.2]]]), np.ones((1, 1, 3)), covariance)
    np.testing.assert_array_equal(got, [[[0, 1, -1]]])


def test_covariances_that_no_inputs_have_are_damped_until_they_could_be():
    """Sums in float32 of inputs that are large and hardly vary give such."""
    covariance = np.array([[[1.0, 1.5], [1.5, 1.0]]])
    got = rounding.compensated(np.array([[[0.4, -2.6]]]), np.ones((1, 1, 2)), covariance)
    assert np.abs(got - [[[0.4, -2.6]]]).max() < 2
    np.testing.assert_array_equal(got, np.round(got))


def test_weights_are_on_the_steps_that_a_quantizer_takes_from_them(calibrated, rounded):
    found, sharing = rounded
    graph = calibrated.graph
    assert found.keys() == {op.index for op in layers(graph)}
    for index, layer in found.items():
        exact = graph.constant(graph.operations[index].inputs[1])
        largest = np.abs(exact).max(sharing, keepdims=True)
        np.testing.assert_allclose(np.abs(layer.kernel).max(sharing, keepdims=True), largest, rtol=1e-12)
        steps = layer.kernel / (largest.astype(np.float64) / LARGEST_WEIGHT)
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-9)
        assert np.abs(layer.kernel - exact).max() > 0


def test_outputs_are_nearer_than_with_the_nearest_steps(calibrated, rounded, pictures):
    """What the interpreter computes, image by image, from weights that are only rounded: not what was predicted."""
    found, _ = rounded
    graph = calibrated.graph
    assert all(layer.error_left < 1 for layer in found.values())

    def outputs(content):
        of = Graph(content)
        return np.stack([interpreter.activations(of, image)[of.outputs[0]] for image in pictures]).astype(np.float64)

    granularity = Granularity.TENSOR if rounded[1] is None else Granularity.CHANNEL
    nearest = {
        op.index: rounding.RoundedLayer(
            rounding.round_weights(kernel, rounding.sharing_axes(op, 4, granularity)), graph.constant(op.inputs[2]), 1
        )
        for op in layers(graph)
        for kernel in [graph.constant(op.inputs[1]).astype(np.float64)]
    }
    exact = outputs(graph.content)
    errors = [outputs(rounding.with_weights(graph, made)) - exact for made in (found, nearest)]
    together, alone = (np.square(error - error.mean((0, 1, 2, 3))).mean() for error in errors)  # beside the mean
    assert together < 0.3 * alone


def test_the_mean_error_goes_off_the_bias(calibrated, rounded, pictures):
    found, _ = rounded
    graph = calibrated.graph
    first = layers(graph)[0]
    changed = Graph(rounding.with_weights(graph, {first.index: found[first.index]}))
    means = [
        np.mean([interpreter.activations(of, image)[first.outputs[0]].mean((0, 1, 2)) for image in pictures], 0)
        for of in (graph, changed)
    ]
    left = np.abs(means[1] - means[0]).mean()
    moved = found[first.index].bias - graph.constant(first.inputs[2])
    assert left < 0.3 * np.abs(moved).mean()


def test_layers_in_float_keep_their_weights(calibrated, rounded):
    found, _ = rounded
    graph = calibrated.graph
    first, *others = layers(graph)
    changed = Graph(rounding.with_weights(graph, found, {first.index}))
    for op in (first, *others):
        before, after = (of.constant(of.operations[op.index].inputs[1]) for of in (graph, changed))
        assert np.array_equal(before, after) == (op == first)


def test_a_file_has_these_weights(calibrated, rounded, pictures, small):
    """The quantizer takes them as they are, and only where moments were asked for."""
    found, sharing = rounded
    granularity = Granularity.TENSOR if sharing is None else Granularity.CHANNEL
    file = Graph(calibrated.quantize(Head.INT8, granularity, IO.FLOAT))
    plain = Graph(calibration.calibrate(small, iter(pictures)).quantize(Head.INT8, granularity, IO.FLOAT))
    for op in layers(small):
        name = small.name(op.outputs[0])
        stored, nearest = (
            next(of.dequantized(o.inputs[1]) for o in of.operations if of.name(o.outputs[0]) == name)
            for of in (file, plain)
        )
        np.testing.assert_allclose(stored, found[op.index].kernel, rtol=1e-5, atol=1e-7)
        assert np.abs(stored - nearest).max() > 0


def test_layers_are_rounded_once_for_all_files(calibrated, monkeypatch):
    calibrated.quantize(Head.INT8, Granularity.TENSOR, IO.FLOAT)
    monkeypatch.setattr(rounding, "round_layer", None)
    calibrated.quantize(Head.INT8, Granularity.TENSOR, IO.INT8)


def test_nor_are_they_rounded_anew_for_other_biases(calibrated, monkeypatch):
    last = layers(calibrated.graph)[-1]
    fresh = calibration.CalibratedGraph(
        calibrated.graph, calibrated.estimator, calibrated.statistics, calibrated.logits
    ).with_biases({last.index: 0.5}, calibrated.statistics)
    expected = fresh.quantize(Head.INT8, Granularity.TENSOR, IO.INT8)
    calibrated.quantize(Head.INT8, Granularity.TENSOR, IO.INT8)
    moved = calibrated.with_biases({last.index: 0.5}, calibrated.statistics)
    monkeypatch.setattr(rounding, "round_layer", None)
    one, other = (Graph(file) for file in (moved.quantize(Head.INT8, Granularity.TENSOR, IO.INT8), expected))
    for op in layers(calibrated.graph):
        name = calibrated.graph.name(op.outputs[0])
        ours, theirs = (next(o for o in of.operations if of.name(o.outputs[0]) == name) for of in (one, other))
        for position in (1, 2):
            np.testing.assert_array_equal(
                one.dequantized(ours.inputs[position]), other.dequantized(theirs.inputs[position])
            )
    before = calibrated.graph.constant(last.inputs[2])
    np.testing.assert_allclose(moved.graph.constant(last.inputs[2]), before + 0.5, rtol=1e-6)
