"""Quantization recipes: an ordered list of (scope, precision), the later rule winning.

A scope is a set of operations of the graph, chosen by topology. A rule whose scope is empty is an error, never a
silent no-op.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ai_edge_quantizer import qtyping, recipe_manager

from ..errors import RecipeError
from ..options import Granularity
from .graph import Graph, Operation
from .operators import REORDER

_GRANULARITY = {
    Granularity.CHANNEL: qtyping.QuantGranularity.CHANNELWISE,
    Granularity.TENSOR: qtyping.QuantGranularity.TENSORWISE,
}


@dataclass(frozen=True)
class Rule:
    """Precision of a part of the graph.

    Attributes:
        scope: what the part is, for the log.
        in_float: the part stays in float; else its weights and activations have 8 bits.
        operations: the operations of the part; None for all.
    """

    scope: str
    in_float: bool
    operations: tuple[Operation, ...] | None = None


def float_decoding(graph: Graph) -> Rule:
    """The rule that keeps box decoding in float.

    The transpositions and reshapes directly behind the convolutions stay in 8 bits: they change no value and move a
    quarter of the bytes.

    Raises:
        RecipeError: nothing lies between the last trained layers and the outputs.
    """
    decoding = graph.decoding()
    inside = {op.index for op in decoding}
    moved: set[int] = set()
    for op in decoding:
        producer = graph.producer.get(op.inputs[0])
        if op.kind in REORDER and producer is not None and (producer.index not in inside or producer.index in moved):
            moved.add(op.index)
    kept = tuple(op for op in decoding if op.index not in moved)
    if not kept:
        raise RecipeError(
            "head='float' matched nothing: no arithmetic lies between the last trained layers and the outputs of this "
            "model; use head='int8'"
        )
    return Rule("box decoding", True, kept)


def to_ai_edge(
    rules: Sequence[Rule], graph: Graph, granularity: Granularity, float_input: bool, float_output: bool
) -> list[dict[str, Any]]:
    """Translate rules into ai-edge-quantizer's recipe.

    Args:
        rules: in order of precedence, the last one highest.
        graph: the float graph that the rules' operations belong to.
        granularity: one scale of the weights per output channel, or one per tensor.
        float_input, float_output: keep the graph's input or outputs in float32 instead of int8.

    Raises:
        RecipeError: a rule names no operation, or only ones that its scope shares with others.
    """
    manager = recipe_manager.RecipeManager()
    every = qtyping.TFLOperationName.ALL_SUPPORTED
    for rule in rules:
        scope = ".*" if rule.operations is None else _scope(rule, graph)
        if rule.in_float:
            manager.add_quantization_config(scope, every, algorithm_key="no_quantize")
        else:
            manager.add_static_config(scope, every, 8, 8, _GRANULARITY[granularity])
    for name, keep in ((qtyping.TFLOperationName.INPUT, float_input), (qtyping.TFLOperationName.OUTPUT, float_output)):
        if keep:
            manager.add_quantization_config(".*", name, algorithm_key="no_quantize")
    return manager.get_quantization_recipe()


def _scope(rule: Rule, graph: Graph) -> str:
    """A regular expression that matches exactly the rule's operations in ai-edge-quantizer's scopes."""
    if not rule.operations:
        raise RecipeError(f"the rule for {rule.scope} matched no operation of the graph")
    # ai-edge-quantizer's scope of an operation: the names of its outputs, each followed by a semicolon
    names = {op.index: "".join(graph.name(t) + ";" for t in op.outputs) for op in graph.operations}
    wanted = {op.index for op in rule.operations}
    own = {names[index] for index in wanted}
    shared = {name for index, name in names.items() if index not in wanted} & own
    if shared:
        raise RecipeError(f"the rule for {rule.scope} would also match other operations named {sorted(shared)[0]!r}")
    return "^(" + "|".join(re.escape(name) for name in sorted(own)) + ")$"
