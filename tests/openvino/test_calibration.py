import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from yolo_edgequant.errors import DataError
from yolo_edgequant.openvino.calibration import Statistics, collect


@pytest.fixture(scope="module")
def pair():
    """A layer, its SiLU and a second layer, in float and with roundings before both layers."""

    def model(rounded):
        image = ops.parameter([1, 3, 8, 8], np.float32, name="image")
        ends = [np.float32(value) for value in (-1, 1, -1, 1)]

        def layer(source, channels, name):
            source = ops.fake_quantize(source, *ends, 256, name=f"{name} input") if rounded else source
            weights = np.random.default_rng(channels).normal(0, 1, (channels, source.get_output_shape(0)[1], 1, 1))
            return ops.convolution(source, weights.astype(np.float32), [1, 1], [0, 0], [0, 0], [1, 1], name=name)

        silu = ops.swish(layer(image, 4, "first"), name="silu")
        return ov.Model([ops.result(layer(silu, 2, "last"))], [image])

    return model(False), model(True)


def pictures():
    return list(np.random.default_rng(0).random((5, 1, 3, 8, 8), np.float32))


def silu_of(float_model):
    named = {node.get_friendly_name(): node for node in float_model.get_ops()}
    compiled = ov.compile_model(ov.Model([named["silu"].output(0)], float_model.get_parameters()), "CPU")
    return np.concatenate([compiled([image])[0] for image in pictures()])


def test_what_is_rounded_is_seen_as_the_float_model_computes_it(pair):
    calibration = collect(*pair, pictures())
    assert set(calibration.statistics) == {"image", "silu"}
    values = silu_of(pair[0])
    silu = calibration.statistics["silu"]
    assert silu.low == pytest.approx(values.min((1, 2, 3)).mean(), rel=1e-2)
    assert silu.high == pytest.approx(values.max((1, 2, 3)).mean(), rel=1e-2)
    np.testing.assert_allclose(silu.least, values.min((0, 2, 3)), rtol=1e-2, atol=1e-3)
    np.testing.assert_allclose(silu.greatest, values.max((0, 2, 3)), rtol=1e-2, atol=1e-3)
    assert set(calibration.means) == {"first", "last"}
    np.testing.assert_allclose(calibration.means["last"], values.mean((0, 2, 3)), rtol=1e-2, atol=1e-3)
    np.testing.assert_allclose(calibration.means["first"], np.concatenate(pictures()).mean((0, 2, 3)), rtol=1e-5)


def test_images_are_taken_one_at_a_time_and_once(pair):
    taken = []

    def stream():
        for number, image in enumerate(pictures()):
            taken.append(number)
            yield image

    collect(*pair, stream())
    assert taken == list(range(5))
    assert len(pair[0].outputs) == 1, "the model stays as it is"


def test_every_image_counts_the_same():
    statistics = Statistics()
    statistics.update(np.full((1, 2, 4, 4), 0.5, np.float32))
    statistics.update(np.full((1, 2, 4, 4), 100, np.float32))
    statistics.update(np.zeros((1, 2, 4, 4), np.float32))  # fits any range
    centres, weights = statistics.histogram.occupied()
    assert centres == pytest.approx([0.5, 100], rel=0.1)
    assert (weights * np.array([0.5, 100]) ** 2) == pytest.approx([1, 1])


def test_no_images_and_values_that_are_not_finite_are_errors(pair):
    with pytest.raises(DataError, match="empty"):
        collect(*pair, [])
    with pytest.raises(DataError, match=r"'image' has values from .* on calibration image 1"):
        collect(*pair, [pictures()[0], np.full((1, 3, 8, 8), np.nan, np.float32)])
