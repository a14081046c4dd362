import numpy as np
import pytest

from yolo_edgequant.verification.holdout import Holdout


def parts(count):
    every = [np.full((1, 2, 2, 3), i, np.float32) for i in range(count)]
    held = Holdout(every, count)
    given = [int(image[0, 0, 0, 0]) for image in held]
    again = [int(image[0, 0, 0, 0]) for image in held]
    assert given == again == [int(held[number][0, 0, 0, 0]) for number in range(len(held))]
    return given, [int(image[0, 0, 0, 0]) for image in held.images], len(held)


@pytest.mark.parametrize(("count", "kept"), [(128, 16), (24, 3), (8, 1), (7, 0), (2000, 16)])
def test_a_few_are_held_back_evenly_and_none_is_in_both(count, kept):
    given, held, length = parts(count)
    assert len(held) == kept
    assert length == len(given) == count - kept
    assert sorted(given + held) == list(range(count))
    if kept > 1:
        steps = np.diff(held)
        assert steps.max() - steps.min() <= 1
    assert count - 1 not in held, "all are gathered before the last image that is given"


def test_images_may_be_given_to_calibration_all_the_same():
    every = [np.full((1, 2, 2, 3), i, np.float32) for i in range(16)]
    held = Holdout(every, 16, also_calibrate=True)
    assert len(list(held)) == len(held) == 16
    assert len(held.images) == 2
    assert [float(held[number].max()) for number in (0, 4, 15)] == [0, 4, 15]


def test_images_are_kept_though_their_memory_is_used_again():
    def stream():
        image = np.empty((1, 2, 2, 3), np.float32)
        for number in range(16):
            image[:] = number
            yield image

    held = Holdout(stream(), 16)
    assert len([image.copy() for image in held]) == 14
    values = [float(image.max()) for image in held.images]
    assert values == [4, 12]
    assert [float(image.min()) for image in held.images] == values


def test_pixels_are_kept_in_8_bits_and_come_back_as_they_were():
    random = np.random.default_rng(0)
    every = [random.integers(0, 256, (1, 8, 8, 3), np.uint8).astype(np.float32) / 255 for _ in range(16)]
    every[12] = random.random((1, 8, 8, 3), np.float32)  # no pixels: would lose by it
    held = Holdout(every, 16)
    assert len(list(held)) == 14
    for image, expected in zip(held.images, (every[4], every[12]), strict=True):
        assert image.dtype == np.float32
        np.testing.assert_array_equal(image, expected)
    assert [array.dtype for array in held._held.values()] == [np.uint8, np.float32]
