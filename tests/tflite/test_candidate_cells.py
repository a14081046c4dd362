import numpy as np
import pytest

from tests.graphs import MERGED_OUTPUTS, RAW_OUTPUTS, Network, raw_detector
from yolo_edgequant.options import RangeEstimator
from yolo_edgequant.tflite import candidate_cells, interpreter, ranges
from yolo_edgequant.tflite.calibration import collect
from yolo_edgequant.tflite.candidate_cells import CandidateCells, CellAxis
from yolo_edgequant.tflite.graph import Graph
from yolo_edgequant.tflite.shared_scales import share_scales

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


ARRANGEMENTS = {"levels": RAW_OUTPUTS, "merged": MERGED_OUTPUTS, "grid": RAW_OUTPUTS}


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_raw_candidates_are_those_of_the_decoded_graph(detector, cells, read, images, arrangement):
    graph = Graph(raw_detector(detector, arrangement))
    raw = candidate_cells.of_raw(graph, ARRANGEMENTS[arrangement])
    candidates = raw.candidates(interpreter.activations(graph, images[0]).__getitem__)
    np.testing.assert_array_equal(candidates, cells.candidates(read))


def test_maps_as_raw_outputs_hold_their_cells_row_by_row(detector, images):
    graph, rows = Graph(raw_detector(detector, "grid")), Graph(raw_detector(detector))
    cells, by_row = (candidate_cells.of_raw(one, RAW_OUTPUTS) for one in (graph, rows))
    assert list(cells.scores.values()) == [CellAxis(first) for first in (0, 400, 500)]
    assert [cells.values[tensor] for tensor in graph.outputs[:3]] == [CellAxis(first) for first in (0, 400, 500)]
    assert any(place.reach == 1 for place in cells.values.values())
    value, row = (interpreter.activations(one, images[0]).__getitem__ for one in (graph, rows))
    candidates = cells.candidates(value)
    for one, other in zip(graph.outputs[:3], rows.outputs[:3], strict=True):
        np.testing.assert_array_equal(
            cells.values_of(one, value(one), candidates), by_row.values_of(other, row(other), candidates)
        )


def test_merged_raw_outputs_are_the_parts_of_the_levels_and_the_whole(detector):
    graph = Graph(raw_detector(detector, "merged"))
    cells = candidate_cells.of_raw(graph, MERGED_OUTPUTS)
    boxes, scores = (graph.producer[tensor] for tensor in graph.outputs)
    assert cells.scores == {t: CellAxis(first, 1) for t, first in zip(scores.inputs, (0, 400, 500), strict=True)}
    assert [cells.values[tensor] for tensor in boxes.inputs] == [CellAxis(first, 1) for first in (0, 400, 500)]
    assert cells.values[boxes.outputs[0]] == CellAxis(0, 1)
    assert scores.outputs[0] not in cells.values
    assert any(place.axis is None and place.reach == 1 for place in cells.values.values()), "inside of the branches"


def test_a_level_without_candidates_does_not_widen_the_range_of_merged_outputs(detector, images):
    graph = Graph(raw_detector(detector, "merged"))
    cells = candidate_cells.of_raw(graph, MERGED_OUTPUTS)
    boxes = graph.producer[graph.outputs[0]]

    def scored(tensor, values):
        return values - 100 if tensor == next(iter(cells.scores)) else values  # none on the largest map

    class Silent(candidate_cells.CandidateCells):
        def candidates(self, read):
            return super().candidates(lambda tensor: scored(tensor, read(tensor)))

    known = collect(graph, images, set(), cells=Silent(cells.scores, cells.values))
    level, whole = known[boxes.inputs[0]], known[boxes.outputs[0]]
    others = [known[tensor] for tensor in boxes.inputs[1:]]
    assert level.maximum > max(other.maximum for other in others), "of all its cells, for want of better"
    assert whole.maximum == max(other.maximum for other in others)
    assert whole.minimum == min(other.minimum for other in others)
    shared = share_scales(graph, ranges.estimate(RangeEstimator.MINMAX, graph, known))
    assert shared[boxes.outputs[0]][1] == shared[boxes.inputs[0]][1] == whole.maximum


@pytest.mark.parametrize("as_maps", [True, False])
def test_sigmoids_that_are_joined_level_by_level(as_maps):
    """As the heads have it that decode with the cells first; there are as many classes as sides of a box."""
    random = np.random.default_rng(0)
    network = Network(1, 8, 8, 3)
    boxes, scores, logits = [], [], []
    for source, side in ((network.input, 8), (network.max_pool(network.input), 4)):

        def rows(tensor, side=side):
            return network.add("RESHAPE", (tensor, network.constant([1, side**2, 4], np.int32)), (1, side**2, 4))

        boxes.append(rows(network.conv(source, random.normal(0, 1, (4, 3, 3, 3)))))
        logit = network.conv(source, random.normal(0, 1, (4, 3, 3, 3)), np.full(4, -6.0))
        logits.append(logit if as_maps else rows(logit))
        sigmoid = network.add("LOGISTIC", (logits[-1],), network.shape(logits[-1]))
        scores.append(rows(sigmoid) if as_maps else sigmoid)
    joined = [network.add("CONCATENATION", parts, (1, 80, 4), axis=1) for parts in (boxes, scores)]
    whole = network.add("CONCATENATION", joined, (1, 80, 8), axis=2)
    order = network.constant([0, 2, 1], np.int32)
    graph = Graph(network.content(network.add("TRANSPOSE", (whole, order), (1, 8, 80))))
    cells = candidate_cells.of_decoded(graph, [64, 16], 4)
    axis = None if as_maps else 1
    assert cells.scores == {logits[0]: CellAxis(0, axis), logits[1]: CellAxis(64, axis)}
    assert [cells.values[tensor] for tensor in boxes] == [CellAxis(0, 1), CellAxis(64, 1)]
    assert cells.values[whole] == CellAxis(0, 1)
    assert cells.values[graph.outputs[0]] == CellAxis(0, 2)
    read = interpreter.activations(graph, random.random((1, 8, 8, 3), np.float32)).__getitem__
    detections = read(graph.outputs[0])
    candidates = cells.candidates(read)
    assert 0 < candidates.sum() < 80
    np.testing.assert_array_equal(candidates, (detections[:, 4:] > 0.01).any(1))


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
