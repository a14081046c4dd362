import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from yolo_edgequant.openvino import ranges
from yolo_edgequant.openvino.calibration import Statistics

ENDS = [np.float32(value) for value in (-1, 1, -1, 1)]


def rounded(source, name, ends=ENDS):
    return ops.fake_quantize(source, *ends, 256, name=name)


def model():
    """Two tensors that are concatenated, one that is not, one with a range by channel, and box decoding."""
    image = ops.parameter([1, 4, 8, 8], np.float32, name="image")
    pixels = rounded(image, "of image")
    one, other = ops.relu(pixels, name="one"), ops.sigmoid(pixels, name="other")
    joined = ops.concat(
        [
            rounded(one, "of one"),
            ops.max_pool(rounded(other, "of other"), [1, 1], [1, 1], [0, 0], [0, 0], [1, 1]).output(0),
        ],
        1,
    )
    alone = rounded(ops.swish(joined, name="alone"), "of alone")
    ends = [np.full((1, 8, 1, 1), value, np.float32) for value in (-1, 1, -1, 1)]
    by_channel = rounded(ops.relu(alone, name="channels"), "of channels", ends)
    boxes = ops.multiply(rounded(ops.relu(by_channel, name="boxes"), "of boxes"), np.float32(2), name="decoding")
    return ov.Model([ops.result(boxes)], [image])


def statistics(*images):
    seen = Statistics()
    for image in images:
        seen.update(np.asarray(image, np.float32))
    return seen


def uniform(greatest, count=3):
    random = np.random.default_rng(0)
    return statistics(*(random.uniform(-0.2, greatest, (1, 8, 32, 32)) for _ in range(count)))


@pytest.fixture(scope="module")
def chosen():
    seen = {"image": uniform(0.7), "one": uniform(4), "other": uniform(1), "alone": uniform(2)}
    boxes = (np.random.default_rng(0).uniform(-0.2, greatest, (1, 8, 32, 32)) for greatest in (1, 9))
    seen |= {"channels": uniform(3), "boxes": statistics(*boxes)}
    network = model()
    return ranges.choose(network, seen, {"decoding"}), seen


def test_images_have_a_scale_of_a_255th_whatever_was_seen(chosen):
    assert chosen[0]["of image"] == (0.0, 1.0)


def test_what_is_concatenated_shares_a_range(chosen):
    assert chosen[0]["of one"] == chosen[0]["of other"]
    assert chosen[0]["of one"] != chosen[0]["of alone"]
    assert chosen[0]["of one"][1] == pytest.approx(4, rel=0.1), "the smaller one's error counts, but so does clipping"


def test_zero_is_a_value_and_the_range_is_near_the_least_error(chosen):
    low, high = chosen[0]["of alone"]
    assert (-low / ((high - low) / 255)) % 1 == pytest.approx(0, abs=1e-6)
    assert low == pytest.approx(-0.2, abs=0.02)
    assert high == pytest.approx(2, abs=0.1)


def test_ranges_by_channel_and_of_box_decoding_are_extremes(chosen):
    ranges_, seen = chosen
    low, high = ranges_["of channels"]
    assert low.shape == high.shape == (8,)
    np.testing.assert_allclose(high, seen["channels"].greatest, atol=0.02)
    assert ranges_["of boxes"][1] == pytest.approx(5, abs=0.05), "the mean of two images' extremes"


def test_one_image_with_huge_values_does_not_take_the_steps_of_all_others():
    random = np.random.default_rng(0)
    images = [random.uniform(0, 2, (1, 8, 32, 32)) for _ in range(100)]
    plain = ranges._search([statistics(*images)])
    outlier = ranges._search([statistics(*images, 200 * images[0])])
    assert plain[1] == pytest.approx(2, rel=0.1)
    assert outlier[1] < 50, "the range of all would be 400"


def test_a_tensor_of_zeros_has_a_range():
    low, high = ranges._with_zero(*ranges._search([statistics(np.zeros((1, 8, 4, 4)))]))
    assert low <= 0 < high
