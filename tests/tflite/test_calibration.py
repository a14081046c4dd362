import tracemalloc

import numpy as np
import pytest

from yolo_edgequant.errors import DataError
from yolo_edgequant.tflite.calibration import Histogram, Statistics, collect


def test_histogram_counts_all_and_does_not_depend_on_the_order():
    random = np.random.default_rng(0)
    parts = [random.normal(0, s, 1000).astype(np.float32) for s in (0.01, 5, 80)]
    one, other = Histogram(), Histogram()
    for part in parts:
        one.add(part, float(np.abs(part).max()))
    for part in parts[::-1]:
        other.add(part, float(np.abs(part).max()))
    assert one.limit == other.limit == 2 ** np.ceil(np.log2(max(np.abs(part).max() for part in parts)))
    assert one.counts.sum() == 3000
    assert np.abs(one.counts - other.counts).sum() <= 2  # a value on a bin's edge may fall to either side
    centres, counts = one.occupied()
    assert (centres * counts).sum() / 3000 == pytest.approx(np.concatenate(parts).mean(), abs=0.1)


def test_statistics_keep_the_extremes_of_all_values():
    statistics = Statistics(histogram=Histogram())
    values = np.zeros(1_000_000, np.float32)
    values[123_457] = 7.5  # not in the histogram's sample
    statistics.update(values)
    statistics.update(-values[:200_000])
    assert (statistics.minimum, statistics.maximum) == (-7.5, 7.5)


def test_collected_extremes_are_those_of_the_interpreter(detector, graph, images):
    from ai_edge_litert.interpreter import Interpreter

    statistics = collect(detector, images)
    interpreter = Interpreter(model_content=detector)
    interpreter.allocate_tensors()
    seen = []
    for image in images:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
        interpreter.invoke()
        seen.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
    output = statistics[graph.outputs[0]]
    assert output.minimum == pytest.approx(np.min(seen), abs=1e-4)
    assert output.maximum == pytest.approx(np.max(seen), abs=1e-4)
    assert set(statistics) == set(graph.activations())


def test_images_are_taken_one_at_a_time_and_once(detector, images):
    taken = []

    def stream():
        for index, image in enumerate(images):
            taken.append(index)
            yield image

    collect(detector, stream(), histograms=set())
    assert taken == list(range(len(images)))


def test_memory_does_not_grow_with_the_images(detector, images):
    def peak(count):
        tracemalloc.start()
        collect(detector, (images[i % len(images)] for i in range(count)), threads=1)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(1)
    assert peak(24) < peak(3) * 1.05


def test_bad_calibration_sets(detector):
    with pytest.raises(DataError, match="empty"):
        collect(detector, [])
    with pytest.raises(DataError, match=r"\(1, 64, 64, 3\).*\(1, 160, 160, 3\)"):
        collect(detector, [np.zeros((1, 64, 64, 3), np.float32)])
    with pytest.raises(DataError, match="nan"):
        collect(detector, [np.full((1, 160, 160, 3), np.nan, np.float32)])
