import numpy as np
import pytest

from yolo_edgequant.runtime.interpreter import allocated
from yolo_edgequant.tflite import interpreter
from yolo_edgequant.tflite.graph import Graph
from yolo_edgequant.tflite.parts import split


def size(graph, tensors):
    return sum(int(np.prod(graph.shape(tensor))) for tensor in tensors)


def computed(graph):
    return [tensor for op in graph.operations for tensor in op.outputs]


@pytest.mark.parametrize("share", [1, 0.4, 1 / 6, 0])
def test_parts_compute_what_the_graph_computes(small, pictures, share):
    whole = interpreter.activations(small, pictures[0])
    values = {small.inputs[0]: pictures[0]}
    parts = split(small, share)
    for part in parts:
        runner, _, _ = allocated(part.content, 1)
        for tensor in part.reads:
            runner.set_tensor(tensor, values[tensor])
        runner.invoke()
        results = {tensor: runner.get_tensor(tensor) for tensor in part.computes}
        for tensor, value in results.items():
            np.testing.assert_array_equal(value, whole[tensor])
        values = {t: values[t] if t in values else results[t] for t in part.hands_on}
    assert values == {}, "nothing is left to read"
    assert [tensor for part in parts for tensor in part.computes] == computed(small)
    assert len(parts) == {1: 1, 0: len(small.operations)}.get(share, len(parts))


def test_each_part_takes_its_share_and_little_is_handed_on(graph):
    parts = split(graph, 1 / 6)
    total = size(graph, computed(graph))
    assert 6 <= len(parts) <= 13
    for part in parts:
        assert size(graph, part.computes) <= total / 6
        assert size(graph, part.hands_on) <= total / 25
    assert sum(len(part.content) for part in parts) < 1.5 * len(graph.content), "no constant of other parts"


def test_what_belongs_together_is_in_the_last_part(graph):
    head = [graph.operations[len(graph.operations) // 2].outputs[0], *graph.outputs]
    *before, last = split(graph, 1 / 6, head)
    assert set(head) <= set(last.computes)
    assert before
    assert Graph(last.content).outputs == last.computes
    assert Graph(last.content).inputs == last.reads


def test_what_nobody_asks_for_is_no_output_unless_a_later_part_reads_it(small):
    gates = small.silu_gates()
    assert len(gates) == 2
    (whole,) = split(small, 1, unasked=gates)
    assert set(computed(small)) - set(whole.computes) == gates
    alone = split(small, 0, unasked=gates)  # a part for each operation: all but the graph's end is read by another
    assert [tensor for part in alone for tensor in part.computes] == computed(small)
