import numpy as np
import pytest

from tests.detections import detections, random_detections
from yolo_edgequant.verification.average_precision import mean_average_precision


def once(statistics):
    return np.ones((1, len(statistics.files)), int)


def test_every_object_found_is_all():
    perfect = detections([[(0, 0.9, 10), (1, 0.8, 10)], [(0, 0.7, 10)]], labels=[[0, 1], [0]])
    assert mean_average_precision(perfect, once(perfect)) == pytest.approx([0.995], abs=0.001)  # Ultralytics' most


def test_the_overlaps_and_the_classes_count_alike():
    half = detections([[(0, 0.9, 5), (1, 0.8, 10)]], labels=[[0, 1]])  # class 0 is right at half of the overlaps
    whole = detections([[(0, 0.9, 10), (1, 0.8, 10)]], labels=[[0, 1]])
    of_half, of_whole = (mean_average_precision(one, once(one))[0] for one in (half, whole))
    assert of_half == pytest.approx(0.75 * of_whole)


def test_a_class_counts_only_in_draws_with_a_label_of_it():
    lost = detections([[(0, 0.9, 10)], []], labels=[[0], [1]])
    draws = np.array([[1, 1], [2, 0], [0, 2]])
    assert mean_average_precision(lost, draws) == pytest.approx([0.4975, 0.995, 0.0], abs=0.001)


def test_a_wrong_detection_costs_by_its_rank():
    first = detections([[(0, 0.9, 0), (0, 0.8, 10)]], labels=[[0]])
    last = detections([[(0, 0.9, 10), (0, 0.8, 0)]], labels=[[0]])
    assert mean_average_precision(first, once(first))[0] == pytest.approx(0.5, abs=0.01)
    assert mean_average_precision(last, once(last))[0] > 0.99


def test_equal_scores_count_in_the_order_of_the_images():
    hit, miss = [(0, 0.5, 10)], [(0, 0.5, 0)]
    first, last = (
        detections(images, labels) for images, labels in (([hit, miss], [[0], []]), ([miss, hit], [[], [0]]))
    )
    assert mean_average_precision(first, once(first))[0] > 0.99
    assert mean_average_precision(last, once(last))[0] == pytest.approx(0.5, abs=0.01)


def test_detections_of_a_class_without_labels_cost_nothing():
    one = detections([[(0, 0.9, 10)]], labels=[[0]])
    more = detections([[(7, 0.95, 0), (0, 0.9, 10)]], labels=[[0]])
    assert mean_average_precision(more, once(more)) == mean_average_precision(one, once(one))


def test_no_detection_and_no_label():
    nothing = detections([[], []], labels=[[], []])
    assert mean_average_precision(nothing, once(nothing)) == [0]
    missed = detections([[], []], labels=[[0], []])
    assert mean_average_precision(missed, once(missed)) == [0]


@pytest.mark.parametrize("seed", range(5))
def test_each_image_once_is_ultralytics_own_figure(seed):
    metrics = pytest.importorskip("ultralytics.utils.metrics")
    one = random_detections(30, seed)
    expected = metrics.ap_per_class(one.hits, one.scores, one.classes, one.label_classes)[5].mean()
    assert mean_average_precision(one, once(one)) == pytest.approx([expected], abs=1e-9)
    assert 0.1 < expected < 0.9


def test_an_image_drawn_twice_is_as_if_it_were_there_twice():
    metrics = pytest.importorskip("ultralytics.utils.metrics")
    one = random_detections(200, 1)
    draws = np.random.default_rng(0).multinomial(200, np.full(200, 1 / 200), 5)
    expected = []
    for draw in draws:
        detected, labelled = draw[one.image], draw[one.label_image]
        values = [np.repeat(v, detected, 0) for v in (one.hits, one.scores, one.classes)]
        expected.append(metrics.ap_per_class(*values, np.repeat(one.label_classes, labelled))[5].mean())
    assert mean_average_precision(one, draws) == pytest.approx(expected, abs=1e-3)
    assert np.std(expected) > 3e-3, "the draws differ by more than the tolerance"
