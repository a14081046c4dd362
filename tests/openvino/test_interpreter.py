import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from yolo_edgequant.openvino import interpreter
from yolo_edgequant.verification.worst_tensor import worst_tensor


@pytest.fixture(scope="module")
def model():
    image = ops.parameter([1, 3, 4, 4], np.float32, name="image")
    doubled = ops.multiply(image, np.float32(2), name="doubled")
    shifted = ops.add(doubled, np.float32(1), name="shifted")
    return ov.Model([ops.result(shifted), ops.result(ops.relu(doubled, name="kept"))], [image])


@pytest.fixture(scope="module")
def pictures():
    return list(np.random.default_rng(0).normal(0, 1, (3, 1, 3, 4, 4)).astype(np.float32))


def test_a_run_has_each_images_results_in_order(model, pictures):
    run = interpreter.run(model, pictures, exact=True)
    assert [tensor.shape for tensor in run.tensors] == [(1, 3, 4, 4)] * 2
    for image, (shifted, kept) in zip(pictures, run.outputs, strict=True):
        np.testing.assert_allclose(shifted, 2 * image + 1, rtol=1e-6)
        np.testing.assert_allclose(kept, np.maximum(2 * image, 0), rtol=1e-6)


def test_results_inside_by_name(model, pictures):
    results = interpreter.results_of(model, ["doubled", "kept"], pictures[0])
    assert set(results) == {"doubled", "kept"}
    np.testing.assert_allclose(results["doubled"], 2 * pictures[0], rtol=1e-6)
    assert len(model.outputs) == 2, "the model stays as it is"


def test_every_value_by_name(model, pictures):
    values = interpreter.values(model, pictures[0])
    assert set(values) == {"image", "doubled", "shifted", "kept"}
    np.testing.assert_allclose(values["shifted"], 2 * pictures[0] + 1, rtol=1e-2)
    assert len(model.outputs) == 2, "the model stays as it is"


def test_steps_are_in_order_with_what_they_read(model):
    steps = dict(interpreter.steps(model))
    assert "image" in steps["doubled"]
    assert "doubled" in steps["shifted"]
    names = list(steps)
    assert names.index("doubled") < names.index("shifted")


def test_the_tensor_where_most_is_lost_is_found_by_them():
    """An output has a place of its own among the results, which must not move the values of the others."""

    def model(step):
        image = ops.parameter([1, 8, 8, 3], np.float32, name="image")
        shifted = ops.add(ops.multiply(image, np.float32(200), name="scaled"), np.float32(1), name="shifted")
        steps = ops.round(ops.divide(shifted, np.float32(step), name="divided"), name="rounded")
        return ov.Model([ops.multiply(steps, np.float32(step), name="last")], [image])

    image = np.random.default_rng(0).random((1, 8, 8, 3), np.float32)
    fine, coarse = model(1e-3), model(1e-3)
    rounding = next(node for node in coarse.get_ops() if node.get_friendly_name() == "rounded")
    source = rounding.input_value(0)
    rounding.input(0).replace_source_output(ops.multiply(source, np.float32(0.0), name="lost").output(0))
    name, left = worst_tensor(interpreter.steps(fine), *(interpreter.values(part, image) for part in (fine, coarse)))
    assert name == "rounded"
    assert left < 0.1


def test_values_of_constants_alone():
    value = ops.convert(ops.constant(np.arange(6, dtype=np.int8)), "f32")
    doubled = ops.multiply(value, np.float32(2))
    one, other = interpreter.constant_values([doubled.output(0), value.output(0)])
    np.testing.assert_array_equal(one, 2 * np.arange(6))
    np.testing.assert_array_equal(other, np.arange(6))
