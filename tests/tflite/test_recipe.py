import re

import numpy as np
import pytest

from tests.graphs import Network
from yolo_edgequant.errors import RecipeError
from yolo_edgequant.options import Granularity
from yolo_edgequant.tflite import recipe
from yolo_edgequant.tflite.graph import Graph


def test_float_decoding_leaves_the_moves_behind_the_convolutions_in_integers(graph):
    rule = recipe.float_decoding(graph)
    assert rule.in_float
    left = set(graph.decoding()) - set(rule.operations)
    assert {op.kind for op in left} == {"TRANSPOSE", "RESHAPE"}
    assert len(left) == 12, "two moves behind each of six convolutions"
    assert {"SOFTMAX", "CONV_2D", "LOGISTIC"} <= {op.kind for op in rule.operations}


def test_a_rule_that_matches_nothing_is_an_error(graph):
    with pytest.raises(RecipeError, match="matched no operation"):
        recipe.to_ai_edge([recipe.Rule("nothing", True, ())], graph, Granularity.CHANNEL, True, True)
    network = Network(1, 8, 8, 3)
    bare = Graph(network.content(network.conv(network.input, np.ones((4, 3, 3, 3)))))
    with pytest.raises(RecipeError, match="head='int8'"):
        recipe.float_decoding(bare)


def test_scopes_match_exactly_their_operations(graph):
    rule = recipe.float_decoding(graph)
    scope = recipe._scope(rule, graph)
    matched = [op for op in graph.operations if re.search(scope, "".join(graph.name(t) + ";" for t in op.outputs))]
    assert matched == list(rule.operations)


def test_a_scope_that_would_match_others_too_is_an_error(graph, monkeypatch):
    twins = [op for op in graph.operations if op.kind == "CONV_2D"][:2]
    names = {op.outputs[0]: "twin" for op in twins}
    name = Graph.name
    monkeypatch.setattr(Graph, "name", lambda self, tensor: names.get(tensor) or name(self, tensor))
    with pytest.raises(RecipeError, match="would also match other operations named 'twin;'"):
        recipe.to_ai_edge([recipe.Rule("one", True, tuple(twins[:1]))], graph, Granularity.CHANNEL, False, False)


@pytest.mark.parametrize(("float_input", "float_output"), [(True, False), (False, True), (True, True), (False, False)])
def test_later_rules_win_and_ends_come_last(graph, float_input, float_output):
    rules = [recipe.Rule("the whole graph", False), recipe.float_decoding(graph)]
    entries = recipe.to_ai_edge(rules, graph, Granularity.TENSOR, float_input, float_output)
    kinds = [(entry["regex"] == ".*", entry["operation"], entry["algorithm_key"]) for entry in entries]
    ends = [name for name, wanted in (("INPUT", float_input), ("OUTPUT", float_output)) if wanted]
    assert [(operation, key) for every, operation, key in kinds if every and operation != "*"] == [
        (name, "no_quantize") for name in ends
    ]
    assert (False, "*", "no_quantize") in kinds
    (whole,) = (entry for entry in entries if (entry["regex"], entry["operation"]) == (".*", "*"))
    assert whole["op_config"]["weight_tensor_config"]["granularity"] == "TENSORWISE"
