import sys

import numpy as np
import pytest

from tests.interpreters import Boxes, Difference, Environment, Outputs, compare, nearer, prepare, run, table
from tests.interpreters import interpreter_of as python_of

SCALE = 0.5


def outputs(*arrays, scale=SCALE):
    return Outputs([np.array(a, np.int8 if scale else np.float32) for a in arrays], [(scale, 0)] * len(arrays))


def test_the_same_outputs_are_equal():
    found = compare(outputs([[1, 2]]), outputs([[1, 2]]))
    assert found == Difference(equal=1.0)
    assert found.cell == "equal"


def test_a_difference_is_counted_in_steps():
    found = compare(outputs([[10, 20, 30, 40]], [[1, 1]]), outputs([[10, 20, 30, 36]], [[1, 2]]))
    assert found.equal == pytest.approx(4 / 6)
    assert (found.largest, found.mean) == (4, 1)


def test_a_float_output_has_the_steps_of_its_range():
    found = compare(outputs([[0.0, 255.0]], scale=0), outputs([[0.0, 252.0]], scale=0))
    assert found.largest == pytest.approx(3)


def test_boxes_are_compared_where_there_may_be_an_object():
    place = Boxes(output=0, classes=1, size=100)
    one = outputs([[[10, 10], [0, 0], [0, 0], [0, 0], [2, 0]]], scale=0.2)  # scores 0.4 and 0
    other = outputs([[[11, 90], [0, 0], [0, 0], [0, 0], [2, 0]]], scale=0.2)
    found = compare(one, other, place)
    assert found.largest_pixels == found.pixels == pytest.approx(20)


@pytest.mark.parametrize(
    ("other", "reason"),
    [(outputs([[1, 2, 3]]), "outputs are"), (outputs([[np.nan, 1]], scale=0), "outputs are")],
)
def test_other_shapes_and_types_are_no_difference_of_rounding(other, reason):
    found = compare(outputs([[1, 2]]), other)
    assert found.error.startswith(reason)
    assert not found.within
    assert found.cell == "FAILED"


def test_what_is_not_finite_is_named():
    one = outputs([[0.0, 1.0]], scale=0)
    assert compare(one, outputs([[0.0, np.nan]], scale=0)).error == "an output is not finite"


def test_the_nearer_of_the_newest_two_ways_counts():
    default, own = outputs([[10, 10]]), outputs([[20, 20]])
    assert not nearer(default, own, outputs([[10, 11]])).own
    assert nearer(default, own, outputs([[20, 19]])).own


def test_a_difference_is_held_against_that_of_rounding():
    rounding = Difference(equal=0.5, mean=1.0, pixels=1.0, largest_pixels=2.0)
    assert Difference(equal=0.5, mean=1.7, pixels=1.7, largest_pixels=9.0).judged(rounding).within
    assert not Difference(equal=0.5, mean=1.8, pixels=1.0, largest_pixels=9.0).judged(rounding).within
    assert not Difference(equal=0.5, mean=1.0, pixels=1.8, largest_pixels=9.0).judged(rounding).within
    assert "FAILED" in Difference(equal=0.5, mean=9.0).judged(rounding).cell


def test_a_file_runs_in_this_interpreter_as_in_the_runtime(tmp_path, detector, images):
    file, inputs = tmp_path / "detector.tflite", tmp_path / "inputs.npy"
    file.write_bytes(detector)
    np.save(inputs, np.concatenate(images[:2]))
    default, own = (run(sys.executable, file, inputs, tmp_path / "out.npz", own) for own in (False, True))
    assert default.stored[0].shape[0] == 2
    assert default.quantization == [(0.0, 0)]
    assert compare(default, own).mean < 0.01  # a float file: only the order of sums differs


def test_a_file_that_does_not_run_is_one_line(tmp_path):
    file = tmp_path / "none.tflite"
    file.write_bytes(b"no model")
    np.save(tmp_path / "inputs.npy", np.zeros((1, 2), np.int8))
    with pytest.raises(RuntimeError, match="model") as error:
        run(sys.executable, file, tmp_path / "inputs.npy", tmp_path / "out.npz")
    assert "\n" not in str(error.value)


def test_a_python_that_is_not_there(tmp_path):
    assert python_of("2.99") is None
    with pytest.raises(RuntimeError, match=r"no Python 2\.99 on this machine"):
        prepare(Environment("x", "2.99", ("x",)), tmp_path)


def test_the_table_says_what_failed():
    rows = {"old 1": {"a": Difference(equal=1.0), "b": Difference(within=False, error="Input tensor lacks data")}}
    said = table(rows, "new 2")
    assert "| old 1 | equal | FAILED |" in said
    assert "- old 1, b: Input tensor lacks data" in said
