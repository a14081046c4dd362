import numpy as np
import pytest

from tests.graphs import RAW_OUTPUTS, raw_detector
from yolo_edgequant.tflite import candidate_cells, interpreter
from yolo_edgequant.tflite.calibration import collect
from yolo_edgequant.tflite.candidate_cells import CandidateCells, CellAxis
from yolo_edgequant.tflite.graph import Graph

LEVELS = [400, 100, 25]


@pytest.fixture(scope="module")
def cells(graph):
    return candidate_cells.of_decoded(graph, LEVELS, 4)


@pytest.fixture(scope="module")
def read(graph, images):
    """Reads a tensor of the float graph after a run on an image with shapes."""
    return interpreter.activations(graph, images[0]).__getitem__


def test_candidates_are_the_cells_with_a_score(graph, cells, read):
    scores = read(graph.outputs[0])[:, 4:]
    candidates = cells.candidates(read)
    assert 0 < candidates.sum() < 525
    np.testing.assert_array_equal(candidates, (scores > 0.01).any(1))


def test_a_candidate_has_a_score_of_one_in_a_hundred_in_some_class():
    scores = np.array([[[0.005, 0.0099], [0.0101, 0.001], [0.001, 0.9]]])
    cells = CandidateCells({0: CellAxis(0, 1)}, {})
    assert cells.candidates(lambda _: np.log(scores / (1 - scores))).tolist() == [[False, True, True]]


def test_around_a_candidate_neighbours_matter_as_far_as_a_convolution_looks():
    values = np.arange(20.0).reshape(1, 4, 5, 1)
    candidates = np.zeros((1, 3 + 20), bool)
    candidates[0, 3 + 6] = candidates[0, 0] = True  # row 1, column 1 of the second level
    for reach, expected in ((0, [6]), (1, [0, 1, 2, 5, 6, 7, 10, 11, 12])):
        cells = CandidateCells({}, {1: CellAxis(3, None, reach)})
        assert cells.values_of(1, values, candidates).ravel().tolist() == expected


def test_the_values_of_candidates(graph, cells, read):
    candidates = cells.candidates(read)
    detections = read(graph.outputs[0])
    values = cells.values_of(graph.outputs[0], detections, candidates)
    np.testing.assert_array_equal(values, detections[0].T[candidates[0]])


def test_branches_of_boxes_are_followed_and_those_of_scores_are_not(graph, cells):
    maps = {t: place for t, place in cells.values.items() if place.axis is None}
    ends = [t for t in maps if graph.shape(t)[3] == 64 and graph.producer[t].kind == "CONV_2D" and not maps[t].reach]
    assert len(ends) >= 3
    first = {t: place.first for t, place in maps.items() if t in ends}
    assert set(first.values()) == {0, 400, 500}
    assert {place.reach for place in maps.values()} == {0, 1}, "before the second 3 x 3 convolution neighbours matter"
    logits = graph.producer[next(iter(cells.scores))].inputs
    ancestors = {t for logit in logits for t, _ in candidate_cells._upstream(graph, logit, set())}
    assert not ancestors & cells.values.keys()


def test_raw_outputs_and_their_branches(detector):
    graph = Graph(raw_detector(detector))
    cells = candidate_cells.of_raw(graph, RAW_OUTPUTS)
    scores = [t for t, output in zip(graph.outputs, RAW_OUTPUTS, strict=True) if output.name == "scores"]
    assert list(cells.scores) == scores
    assert [place.first for place in cells.scores.values()] == [0, 400, 500]
    boxes = [t for t, output in zip(graph.outputs, RAW_OUTPUTS, strict=True) if output.name == "boxes"]
    assert [cells.values[tensor].first for tensor in boxes] == [0, 400, 500]
    assert any(place.axis is None and place.reach == 1 for place in cells.values.values())


def test_raw_candidates_are_those_of_the_decoded_graph(detector, cells, read, images):
    graph = Graph(raw_detector(detector))
    raw = candidate_cells.of_raw(graph, RAW_OUTPUTS).candidates(interpreter.activations(graph, images[0]).__getitem__)
    np.testing.assert_array_equal(raw, cells.candidates(read))


def test_another_head_has_no_cells(graph):
    assert candidate_cells.of_decoded(graph, LEVELS, 5) is None
    assert candidate_cells.of_decoded(graph, [100, 25], 4) is None


def test_neighbours():
    wanted = np.zeros((2, 5, 6), bool)
    wanted[0, 0, 0] = wanted[1, 3, 3] = True
    wide = candidate_cells._widened(wanted, 1)
    assert wide[0].sum() == 4
    assert wide[0, :2, :2].all()
    assert wide[1].sum() == 9
    assert wide[1, 2:5, 2:5].all()


def test_ranges_leave_out_what_no_threshold_lets_through(graph, cells, images):
    everywhere, chosen = collect(graph, images, set()), collect(graph, images, set(), cells=cells)
    assert any(chosen[t].maximum < everywhere[t].maximum for t in cells.values)
    for tensor, statistics in chosen.items():
        known = everywhere[tensor]
        if tensor in cells.values:
            assert known.minimum <= statistics.minimum <= statistics.maximum <= known.maximum
        else:
            assert (statistics.minimum, statistics.maximum) == (known.minimum, known.maximum)


def test_images_without_objects_give_the_ranges_of_all_cells(graph, cells):
    grey = [np.full((1, 160, 160, 3), 0.5, np.float32)]
    everywhere, chosen = (
        {t: (s.minimum, s.maximum) for t, s in collect(graph, grey, set(), cells=only).items()}
        for only in (None, cells)
    )
    assert everywhere == chosen
