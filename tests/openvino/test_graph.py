import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from yolo_edgequant.openvino import graph


def model():
    """Two layers, the first with SiLU, and as box decoding a softmax, an expectation and a sum."""
    random = np.random.default_rng(0)
    image = ops.parameter([1, 3, 4, 4], np.float32, name="image")

    def convolution(source, weights, name):
        return ops.convolution(source, weights, [1, 1], [0, 0], [0, 0], [1, 1], name=name)

    def layer(source, channels, name):
        weights = random.normal(0, 1, (channels, source.get_output_shape(0)[1], 1, 1)).astype(np.float32)
        bias = random.normal(0, 1, (1, channels, 1, 1)).astype(np.float32)
        return ops.add(convolution(source, weights, name), bias, name=f"{name} bias")

    activated = ops.swish(layer(image, 8, "first"), name="silu")
    last = layer(activated, 4, "last")
    softmax = ops.softmax(last, 1, name="softmax")
    bins = np.arange(4, dtype=np.float32).reshape(1, 4, 1, 1)
    expectation = convolution(softmax, bins, "expectation")
    doubled = ops.add(expectation, expectation, name="doubled")
    return ov.Model([ops.result(doubled)], [image])


def named(model):
    return {node.get_friendly_name(): node for node in model.get_ops()}


def test_box_decoding_is_all_behind_the_last_layers():
    assert graph.decoding(model()) == ["doubled", "expectation", "softmax"]
    assert graph.last(model()) == ["doubled"]


def test_layers_are_those_with_trained_weights():
    assert [node.get_friendly_name() for node in graph.layers(model())] == ["first", "last"]


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        ("first", True),
        ("first bias", True),
        ("silu", True),
        ("last bias", True),
        ("softmax", False),
        ("expectation", False),
        ("doubled", False),
    ],
)
def test_what_ends_a_layer(name, ends):
    network = model()  # nodes do not keep their model alive
    assert graph.ends_layer(named(network)[name]) is ends


def test_a_product_of_two_activations_is_no_layer():
    one = ops.parameter([1, 4, 4], np.float32)
    product = ops.matmul(one, ops.softmax(one, 1), False, False, name="attention")
    network = ov.Model([ops.result(product)], [one])
    assert graph.layers(network) == []
    assert "attention" in graph.decoding(network)


def test_constants_are_found_behind_conversions():
    weights = ops.convert(ops.constant(np.arange(6, dtype=np.float16)), "f32")
    np.testing.assert_array_equal(graph.constant(ops.reshape(weights, [2, 3], False)), np.arange(6))
    assert graph.constant(ops.relu(weights)) is None


def test_roundings_of_activations_and_what_they_round():
    image = ops.parameter([1, 4, 4, 3], np.float32)
    ends = [np.float32(value) for value in (-1, 1, -1, 1)]
    relu = ops.relu(image, name="relu")
    moved = ops.transpose(relu, [0, 3, 1, 2])
    activation = ops.fake_quantize(moved, *ends, 256, name="of relu")
    weights = ops.fake_quantize(ops.constant(np.ones((2, 3, 1, 1), np.float32)), *ends, 255, name="of weights")
    layer = ops.convolution(activation, weights, [1, 1], [0, 0], [0, 0], [1, 1])
    network = ov.Model([ops.result(layer)], [image])
    nodes = named(network)
    assert graph.rounds_activations(nodes["of relu"])
    assert not graph.rounds_activations(nodes["of weights"])
    assert not graph.rounds_activations(nodes["relu"])
    assert graph.computed(nodes["of relu"]).get_friendly_name() == "relu"


def test_what_is_concatenated_shares_a_scale():
    image = ops.parameter([1, 4, 4, 4], np.float32)

    def rounded(source, name):
        return ops.fake_quantize(source, *[np.float32(value) for value in (-1, 1, -1, 1)], 256, name=name)

    one, other = rounded(ops.relu(image), "one"), rounded(ops.sigmoid(image), "other")
    moved = ops.max_pool(rounded(ops.tanh(image), "moved"), [1, 1], [1, 1], [0, 0], [0, 0], [1, 1]).output(0)
    joined = ops.concat([rounded(ops.add(one, other), "sum"), moved, ops.relu(image)], 1)
    network = ov.Model([ops.result(ops.concat([joined, rounded(ops.relu(joined), "last"), moved], 1))], [image])
    groups = {frozenset(node.get_friendly_name() for node in group) for group in graph.sharing_scales(network)}
    assert groups == {frozenset({"one"}), frozenset({"other"}), frozenset({"sum", "moved", "last"})}


def test_the_bias_of_a_layer():
    network = model()
    nodes = named(network)
    addition, position = graph.bias(nodes["first"])
    assert addition.get_friendly_name() == "first bias"
    assert graph.constant(addition.input_value(position).get_node()).size == 8
    assert graph.bias(nodes["expectation"]) is None


@pytest.mark.parametrize("shape", [(1, 8, 1, 1), (8, 1, 1)])
def test_a_bias_can_be_added_to(shape):
    image = ops.parameter([1, 3, 4, 4], np.float32)
    weights = np.ones((8, 3, 1, 1), np.float32)
    convolution = ops.convolution(image, weights, [1, 1], [0, 0], [0, 0], [1, 1])
    before = np.arange(8, dtype=np.float32).reshape(shape)
    network = ov.Model([ops.result(ops.add(convolution, before))], [image])
    graph.add_to_bias(convolution, np.arange(8) * 10)
    addition, position = graph.bias(convolution)
    value = addition.input_value(position).get_node()
    assert tuple(value.get_output_shape(0)) == shape
    np.testing.assert_array_equal(graph.constant(value).ravel(), np.arange(8) * 11)
    result = ov.compile_model(network, "CPU")([np.zeros((1, 3, 4, 4), np.float32)])[0]
    np.testing.assert_allclose(result[0, :, 0, 0], np.arange(8) * 11, rtol=1e-2)


def test_layers_whose_results_are_only_moved_and_joined():
    network = model()
    nodes = named(network)
    last, silu = nodes["last bias"].output(0), nodes["silu"].output(0)
    moved = ops.reshape(last, [1, 4, 16], False)

    def joined(*parts):
        return [layer.get_friendly_name() for layer in graph.layers_joined(ops.result(ops.concat(list(parts), 1)))]

    assert joined(moved) == ["last"]
    assert joined(moved, ops.concat([moved, moved], 1)) == ["last"] * 3
    assert joined(moved, ops.reshape(silu, [1, 8, 16], False)) == []
    assert joined(ops.reshape(ops.add(last, np.float32(1)), [1, 4, 16], False)) == []
    assert graph.layers_joined(nodes["softmax"])[0].get_friendly_name() == "last"


def test_names_do_not_tell_what_the_process_did_before():
    def network():
        image = ops.parameter([1, 4], np.float32, name="image")
        own = ops.relu(ops.add(image, ops.constant(np.float32(2))))
        own.set_friendly_name("own")
        return ov.Model([ops.result(ops.sigmoid(own))], [image])

    def names(model):
        return [model.get_friendly_name(), *(node.get_friendly_name() for node in model.get_ordered_ops())]

    one, other = network(), network()
    assert names(one) != names(other)
    graph.number_names(one)
    graph.number_names(other)
    assert names(one) == names(other)
    assert len(set(names(one))) == len(names(one))
    assert "own" in names(one)
