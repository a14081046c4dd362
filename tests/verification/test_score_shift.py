from dataclasses import replace

import numpy as np
import pytest

from tests.detections import detections, random_detections
from yolo_edgequant.verification.score_shift import f1_curve, score_shift

#: An object with a score of 0.9, one with 0.6, and a wrong detection with 0.3.
FLOAT = detections([[(0, 0.9, 10), (0, 0.6, 10)], [(0, 0.3, 0)]], [[0, 0], []])


def test_f1_counts_what_is_at_the_threshold_or_over_it():
    curve = f1_curve(FLOAT)
    assert [curve[at] for at in (0, 300, 301, 600, 601, 900, 901)] == pytest.approx([0.8, 0.8, 1, 1, 2 / 3, 2 / 3, 0])


def test_f1_is_at_an_overlap_of_one_half():
    barely = detections([[(0, 0.9, 1)]], [[0]])
    below = detections([[(0, 0.9, 0)]], [[0]])
    assert (f1_curve(barely)[500], f1_curve(below)[500]) == (1, 0)


def test_f1_is_the_mean_over_the_classes_that_have_a_label():
    two = detections([[(0, 0.9, 10), (7, 0.9, 0)]], [[0, 1]])
    assert f1_curve(two)[500] == 0.5


def test_f1_is_ultralytics_own_but_for_its_interpolation():
    metrics = pytest.importorskip("ultralytics.utils.metrics")
    one = random_detections(300, 0)
    curves = metrics.ap_per_class(one.hits, one.scores, one.classes, one.label_classes)[9]
    theirs = np.interp(np.linspace(0, 1, 1001), np.linspace(0, 1, 1000), curves.mean(0))
    np.testing.assert_allclose(f1_curve(one)[20:900], theirs[20:900], atol=0.01)


def test_a_model_is_its_own_equal():
    shift = score_shift(FLOAT, FLOAT)
    assert (shift.threshold_shift, shift.score_change, shift.matched) == (0, 0, 1)
    assert shift.f1 == shift.f1_float == 1
    assert 0.3 < shift.threshold < 0.6


def test_lower_scores_at_equal_rank_cost_f1_at_the_old_threshold():
    reference = random_detections(300, 0)
    lower = replace(reference, scores=reference.scores * 0.6)
    shift = score_shift(reference, lower)
    assert shift.threshold_shift == pytest.approx(-0.4 * shift.threshold, abs=0.03)
    assert shift.f1 < shift.f1_float - 0.05
    sure = reference.scores[reference.scores * 0.8 >= 0.25]
    assert shift.score_change == pytest.approx(-0.4 * sure.mean(), abs=0.005)
    assert f1_curve(lower).max() == pytest.approx(f1_curve(reference).max(), abs=0.01)


def test_objects_are_matched_in_their_image_by_class_and_overlap():
    reference = detections([[(0, 0.9, 10, 0), (1, 0.8, 10, 50)], [(0, 0.7, 10, 0)]], [[0, 1], [0]])
    other = [(1, 0.1, 0, 0), (0, 0.5, 10, 1), (1, 0.2, 10, 54)]  # another class, overlap 0.82, overlap 0.43
    shift = score_shift(reference, detections([other, []], [[0, 1], [0]]))
    assert shift.score_change == pytest.approx(0.5 - 0.9)
    assert shift.matched == pytest.approx(1 / 3)


def test_an_object_is_in_one_pair_at_most_and_the_surest_chooses_first():
    reference = detections([[(0, 0.5, 10, 1), (0, 0.9, 10, 0)]], [[0]])
    shift = score_shift(reference, detections([[(0, 0.8, 10, 0.8)]], [[0]]))
    assert shift.score_change == pytest.approx(0.8 - 0.9)
    assert shift.matched == 0.5


def test_what_both_together_are_not_sure_of_does_not_count():
    reference = detections([[(0, 0.24, 10, 0), (0, 0.25, 10, 50), (0, 0.2, 10, 90)]], [[0]])
    shift = score_shift(reference, detections([[(0, 0.24, 10, 0), (0, 0.3, 10, 50), (0, 0.4, 10, 90)]], [[0]]))
    assert shift.score_change == pytest.approx((0.05 + 0.2) / 2)
    assert shift.matched == 1


def test_noise_alone_does_not_change_scores_on_average():
    """Many weak objects and few sure ones, as anywhere: the surest by one model's noise are less sure to another."""
    random = np.random.default_rng(0)
    scores = np.clip(random.exponential(0.15, 4000), 0.02, 0.9)
    one, other = (
        detections(
            [[(0, score, 10, 0)] for score in np.clip(scores + random.normal(0, 0.05, 4000), 0.01, 1)], [[0]] * 4000
        )
        for _ in range(2)
    )
    sure = one.scores >= 0.25
    assert (other.scores - one.scores)[sure].mean() < -0.01
    assert score_shift(one, other).score_change == pytest.approx(0, abs=0.003)


def test_nothing_to_match():
    shift = score_shift(detections([[]], [[0]]), FLOAT.only([0]))
    assert (shift.score_change, shift.matched, shift.f1_float) == (None, None, 0)
    assert score_shift(FLOAT, detections([[], []], [[0, 0], []])).matched == 0
