import tracemalloc

import numpy as np
import pytest

from yolo_edgequant.errors import DataError
from yolo_edgequant.histogram import Histogram
from yolo_edgequant.int8 import SIGMOID_RANGE
from yolo_edgequant.tflite import calibration, candidate_cells, interpreter, score_alignment
from yolo_edgequant.tflite.calibration import Statistics, collect


@pytest.mark.parametrize("channels", [2, 8, 64])
def test_the_sample_of_a_histogram_leaves_no_channel_out(channels):
    statistics = Statistics(histogram=Histogram())
    statistics.update(np.tile(np.arange(1, channels + 1, dtype=np.float32), (1 << 20) // channels))
    _, counts = statistics.histogram.occupied()
    assert len(counts) == channels
    assert counts.min() > 0.9 * counts.max()


def test_statistics_keep_the_extremes_of_all_values():
    statistics = Statistics(histogram=Histogram())
    values = np.zeros(1_000_000, np.float32)
    values[123_457] = 7.5  # not in the histogram's sample
    statistics.update(values)
    statistics.update(-values[:200_000])
    assert (statistics.minimum, statistics.maximum) == (-7.5, 7.5)


def test_collected_extremes_are_those_of_the_interpreter(graph, images):
    statistics = collect(graph, images)
    outputs = [interpreter.activations(graph, image)[graph.outputs[0]] for image in images]
    output = statistics[graph.outputs[0]]
    assert output.minimum == pytest.approx(np.min(outputs), abs=1e-4)
    assert output.maximum == pytest.approx(np.max(outputs), abs=1e-4)
    assert set(statistics) == set(graph.activations())


def test_logits_are_kept_of_the_tensors_that_are_asked_for(graph, images):
    cells = candidate_cells.of_decoded(graph, [400, 100, 25], 4)
    layer = score_alignment.score_layers(graph, cells)[0].outputs[0]
    statistics = calibration.collect(graph, iter(images), set(), scores=[layer])
    assert [tensor for tensor, known in statistics.items() if known.candidates is not None] == [layer]
    kept = statistics[layer].candidates
    assert len(kept) == len(images)
    for number, image in enumerate(images):
        own = interpreter.activations(graph, image)[layer].reshape(-1, 4)
        candidates = own.max(1) > np.log(1 / 99)
        np.testing.assert_allclose(kept[number][candidates], own[candidates], atol=1e-5)
        assert candidates.any()
        assert not candidates.all()


def test_images_are_taken_one_at_a_time_and_once(graph, images):
    taken = []

    def stream():
        for index, image in enumerate(images):
            taken.append(index)
            yield image

    collect(graph, stream(), histograms=set())
    assert taken == list(range(len(images)))


def test_statistics_do_not_depend_on_how_the_graph_is_cut(graph, images, monkeypatch):
    few = images[:3]
    monkeypatch.setattr(calibration, "_SHARE", 1)
    whole = collect(graph, few)
    monkeypatch.setattr(calibration, "_SHARE", 0)  # a part for each operation
    monkeypatch.setattr(calibration, "_GROUP", 2)
    in_parts = collect(graph, few)
    assert list(whole) == list(in_parts) == graph.activations()
    for tensor, one in whole.items():
        other = in_parts[tensor]
        assert (one.minimum, one.maximum) == (other.minimum, other.maximum)
        np.testing.assert_array_equal(one.mean, other.mean)
        if tensor in graph.silu_gates():
            assert (one.minimum, one.maximum) == SIGMOID_RANGE, "given, whatever the images"
            continue
        np.testing.assert_array_equal(one.histogram.counts, other.histogram.counts)


def test_memory_does_not_grow_with_the_images(graph, images):
    def peak(count):
        tracemalloc.start()
        collect(graph, (images[i % len(images)] for i in range(count)), threads=1)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(1)
    assert peak(20) < peak(8) * 1.05  # a group of images, and more of them


def test_bad_calibration_sets(graph):
    with pytest.raises(DataError, match="empty"):
        collect(graph, [])
    with pytest.raises(DataError, match=r"\(1, 64, 64, 3\).*\(1, 160, 160, 3\)"):
        collect(graph, [np.zeros((1, 64, 64, 3), np.float32)])
    with pytest.raises(DataError, match="nan"):
        collect(graph, [np.full((1, 160, 160, 3), np.nan, np.float32)])
