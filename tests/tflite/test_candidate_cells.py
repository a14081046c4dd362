import copy

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter

from yolo_edgequant.tflite.conversion import to_tflite
from yolo_edgequant.quantization import calibration, cells
from yolo_edgequant.tflite.graph import Graph

LEVELS = [400, 100, 25]


@pytest.fixture(scope="module")
def found(graph):
    return cells.of_decoded(graph, LEVELS, 4)


@pytest.fixture(scope="module")
def read(detector, images):
    """Reads a tensor of the float graph after a run on an image with shapes."""
    with calibration.all_tensors_kept():
        interpreter = Interpreter(model_content=detector, experimental_preserve_all_tensors=True)
        interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images[0])
    interpreter.invoke()
    return interpreter.get_tensor


@pytest.fixture(scope="module")
def raw(request):
    """The embedded detector's raw graph, and what its outputs are."""
    from ultralytics import YOLO

    from yolo_edgequant.demo.train import WEIGHTS
    from yolo_edgequant.upstream.heads import detach_head

    model = copy.deepcopy(YOLO(WEIGHTS).model).float().eval().requires_grad_(False).fuse()
    contract = detach_head(model.model[-1], cells_first=True)
    graph = Graph(to_tflite(model, torch.zeros(1, 3, 160, 160), channels_last=True))
    return graph, [contract["outputs"][position] for position in graph.output_order()]


def test_candidates_are_the_cells_with_a_score(graph, found, read):
    scores = read(graph.outputs[0])[:, 4:]
    candidates = found.candidates(read)
    assert 0 < candidates.sum() < 525
    np.testing.assert_array_equal(candidates, (scores > 0.01).any(1))


def test_the_values_of_candidates(graph, found, read):
    candidates = found.candidates(read)
    detections = read(graph.outputs[0])
    chosen = found.chosen(graph.outputs[0], detections, candidates)
    np.testing.assert_array_equal(chosen, detections[0].T[candidates[0]])


def test_branches_of_boxes_are_followed_and_those_of_scores_are_not(graph, found):
    maps = {t: place for t, place in found.values.items() if place.axis is None}
    ends = [t for t in maps if graph.shape(t)[3] == 64 and graph.producer[t].kind == "CONV_2D" and not maps[t].reach]
    assert len(ends) >= 3
    first = {t: place.first for t, place in maps.items() if t in ends}
    assert set(first.values()) == {0, 400, 500}
    assert {place.reach for place in maps.values()} == {0, 1}, "before the second 3 x 3 convolution neighbours matter"
    logits = graph.producer[next(iter(found.scores))].inputs
    ancestors = {t for logit in logits for t, _ in cells._upstream(graph, logit, set())}
    assert not ancestors & found.values.keys()


def test_raw_outputs_and_their_branches(raw):
    graph, outputs = raw
    found = cells.of_raw(graph, outputs)
    names = [output["name"] for output in outputs]
    assert set(found.scores) == {t for t, name in zip(graph.outputs, names, strict=True) if name == "scores"}
    assert [place.first for place in found.scores.values()] == [0, 400, 500]
    boxes = {t for t, name in zip(graph.outputs, names, strict=True) if name == "boxes"}
    assert boxes <= found.values.keys()
    assert {place.first for t, place in found.values.items() if t in boxes} == {0, 400, 500}
    assert any(place.axis is None and place.reach == 1 for place in found.values.values())


def test_another_head_has_no_cells(graph):
    assert cells.of_decoded(graph, LEVELS, 5) is None
    assert cells.of_decoded(graph, [100, 25], 4) is None


def test_neighbours():
    wanted = np.zeros((2, 5, 6), bool)
    wanted[0, 0, 0] = wanted[1, 3, 3] = True
    wide = cells._widened(wanted, 1)
    assert wide[0].sum() == 4
    assert wide[0, :2, :2].all()
    assert wide[1].sum() == 9
    assert wide[1, 2:5, 2:5].all()


def test_ranges_leave_out_what_no_threshold_lets_through(detector, graph, found, images):
    everywhere = calibration.collect(detector, images, set())
    chosen = calibration.collect(detector, images, set(), cells=found)
    narrower = [t for t in found.values if chosen[t].maximum < everywhere[t].maximum]
    assert narrower
    for tensor, seen in chosen.items():
        if tensor in found.values:
            assert everywhere[tensor].minimum <= seen.minimum <= seen.maximum <= everywhere[tensor].maximum
        else:
            assert (seen.minimum, seen.maximum) == (everywhere[tensor].minimum, everywhere[tensor].maximum)


def test_images_without_objects_give_the_ranges_of_all_cells(detector, found):
    grey = [np.full((1, 160, 160, 3), 0.5, np.float32)]
    everywhere, chosen = (
        calibration.collect(detector, grey, set()),
        calibration.collect(detector, grey, set(), cells=found),
    )
    extremes = [{t: (s.minimum, s.maximum) for t, s in seen.items()} for seen in (everywhere, chosen)]
    assert extremes[0] == extremes[1]
