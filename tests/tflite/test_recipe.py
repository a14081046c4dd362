import pytest
import torch
from torch import nn

from yolo_edgequant.tflite.conversion import to_tflite
from yolo_edgequant.errors import RecipeError
from yolo_edgequant.quantization import recipe
from yolo_edgequant.tflite.graph import Graph


def test_float_head_leaves_the_moves_behind_the_convolutions_in_integers(graph):
    rule = recipe.float_head(graph)
    head = graph.head()
    left = set(head) - set(rule.operations)
    assert {op.kind for op in left} == {"TRANSPOSE", "RESHAPE"}
    assert len(left) == 12, "two moves behind each of six convolutions"
    assert {"SOFTMAX", "CONV_2D", "LOGISTIC"} <= {op.kind for op in rule.operations}


def test_a_rule_that_matches_nothing_is_an_error(graph):
    with pytest.raises(RecipeError, match="matched no operation"):
        recipe.to_ai_edge([recipe.Rule("nothing", "float", ())], graph, "channel", True, True)
    model = nn.Conv2d(3, 4, 3).eval()
    bare = Graph(to_tflite(model, torch.zeros(1, 3, 8, 8), channels_last=False))
    with pytest.raises(RecipeError, match="head='int8'"):
        recipe.float_head(bare)


def test_scopes_match_exactly_their_operations(graph):
    import re

    rule = recipe.float_head(graph)
    scope = recipe._scope(rule, graph)
    matched = [op for op in graph.operations if re.search(scope, "".join(graph.name(t) + ";" for t in op.outputs))]
    assert matched == list(rule.operations)
