import itertools

import numpy as np
import pytest

from yolo_edgequant import level_shift
from yolo_edgequant.level_shift import CandidateLogits, Shift


@pytest.mark.parametrize(
    ("shift", "systematic"),
    [
        (Shift(-0.1, 0.04, 20), True),
        (Shift(0.1, 0.04, 20), True),
        (Shift(-0.1, 0.06, 20), False),
        (Shift(-0.1, 0.04, 7), False),
        (Shift(-2.1, 0.04, 20), False),
        (Shift(0.0, np.inf, 0), False),
    ],
)
def test_chance_is_no_shift_nor_is_a_collapse(shift, systematic):
    assert shift.systematic == systematic


def test_the_error_is_that_of_other_images():
    random = np.random.default_rng(1)
    drawn = [Shift.of([random.normal(own, 0.1, 40) for own in random.normal(0, 1, 25)]) for _ in range(60)]
    medians = [shift.median for shift in drawn]
    assert np.mean([shift.error for shift in drawn]) == pytest.approx(np.std(medians), rel=0.3)


def test_images_without_objects_do_not_count():
    images = [np.array([-0.2, -0.1]), np.array([]), np.array([-0.3])]
    assert (Shift.of(images).median, Shift.of(images).images) == (-0.2, 2)
    assert Shift.of([np.array([])]) == Shift(0.0, np.inf, 0)


@pytest.mark.parametrize(("count", "numbers"), [(0, []), (1, [0]), (64, list(range(64)))])
def test_few_images_are_all_compared(count, numbers):
    assert level_shift.to_compare(count) == numbers


def test_of_many_images_some_are_compared_from_all_over():
    numbers = level_shift.to_compare(1000)
    assert (len(set(numbers)), numbers[0], numbers[-1]) == (64, 0, 999)
    assert {later - earlier for earlier, later in itertools.pairwise(numbers)} <= {15, 16}


def test_a_cell_counts_by_the_mean_of_its_scores_and_by_its_surest_class():
    one = np.array([[-9, 2.0], [-1.5, -9], [-9, -3], [0.5, 0.4]])
    other = np.array([[-9, 1.5], [-9, -9], [-9, -3], [0.0, 0.8]])
    # 0.88 and 0.82; 0.18 and 0; 0.05 twice, which is too little; of the last cell, the second class
    assert level_shift.of_objects(one, other) == pytest.approx([-0.5, 0.4])
    lower = np.array([[-1.5, -9]]), np.array([[-2.5, -9]])  # 0.18 and 0.08
    assert level_shift.of_objects(*lower) == pytest.approx([-1])
    assert level_shift.of_objects(*lower[::-1]) == pytest.approx([1])


def test_nothing_is_shifted_by_noise():
    """As it would seem to be if the first model's score alone had to be high."""
    random = np.random.default_rng(2)
    exact = random.normal(-4, 2, (40, 500, 1))
    one, other = (exact + random.normal(0, 0.7, exact.shape) for _ in range(2))
    assert not Shift.of([level_shift.of_objects(*pair) for pair in zip(one, other, strict=True)]).systematic


def test_what_is_added_is_said_by_level(caplog):
    shifts = [Shift(-0.25, 0.01, 20), Shift(0.02, 0.02, 20), Shift(0.1, 0.01, 20)]
    with caplog.at_level("INFO"):
        assert level_shift.changes(shifts) == {0: 0.25, 2: -0.1}
    assert "logits +0.25 of level 1 of 3, -0.10 of level 3 of 3" in caplog.text
    caplog.clear()
    assert level_shift.changes([shifts[1]]) == {}
    assert not caplog.text


def test_images_are_compared_with_what_was_kept_of_them():
    random = np.random.default_rng(3)
    images = [random.normal(0, 1, (1, 4, 5, 2)) for _ in range(80)]
    levels = [CandidateLogits(), CandidateLogits()]
    for image in images:
        for kept in levels:
            kept.update(image)
    shifts = level_shift.measure(lambda image: [image - 0.5, image.reshape(20, 2)], levels, images)
    assert [shift.median for shift in shifts] == pytest.approx([-0.5, 0], abs=1e-6)
    assert [shift.images for shift in shifts] == [64, 64]


def test_logits_of_candidates_are_kept_image_by_image():
    kept = CandidateLogits()
    map_ = np.full((1, 2, 3, 2), -9, np.float32)
    map_[0, 0, 2], map_[0, 1, 0, 1] = (-9, 1), -4.5  # scores of 0.73 and 0.011 in cells 2 and 3
    for values in (map_, map_.reshape(1, 6, 2), np.full_like(map_, -9)):
        kept.update(values)
    expected = np.full((6, 2), -20, np.float32)
    expected[2:4] = (-9, 1), (-9, -4.5)
    map_[:] = 0  # as the interpreter's memory changes
    assert len(kept) == 3
    np.testing.assert_array_equal(kept[0], expected)
    np.testing.assert_array_equal(kept[1], expected)
    np.testing.assert_array_equal(kept[2], np.full((6, 2), -20))


def test_objects_that_one_model_alone_finds_count_whichever_it_is():
    """Else those that it loses would count, and those that it finds anew would not: the median would seem to fall."""
    one, other = np.full((2, 50, 3), -9, np.float32)
    one[:10, 1] = other[10:20, 2] = one[20:25, 0] = other[20:25, 0] = 1
    kept = CandidateLogits()
    kept.update(one)
    differences = level_shift.of_objects(kept[0], other)
    assert [(differences < -5).sum(), (differences == 0).sum(), (differences > 5).sum()] == [10, 5, 10]
