"""Quantisation recipes: an ordered list of (scope, precision), the later rule winning.

A scope is a set of operations of the graph, chosen by topology. A rule whose scope is empty is an error, never a
silent no-op.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ai_edge_quantizer import qtyping, recipe_manager

from ..errors import RecipeError
from .graph import Graph, Operation

Granularity = Literal["channel", "tensor"]

#: Operators that only move values: exact in 8 bits, and cheaper there.
_MOVES = {"TRANSPOSE", "RESHAPE"}


@dataclass(frozen=True)
class Rule:
    """Precision of a part of the graph.

    Attributes:
        scope: what the part is, for the log.
        precision: ``int8`` (weights and activations) or ``float``.
        operations: the operations of the part; None for all.
    """

    scope: str
    precision: Literal["int8", "float"]
    operations: tuple[Operation, ...] | None = None


def float_head(graph: Graph) -> Rule:
    """The rule that keeps Head #3 in float.

    The transpositions and reshapes directly behind the convolutions stay in 8 bits: they change no value and move a
    quarter of the bytes.

    Raises:
        RecipeError: nothing lies between the last trained layers and the outputs.
    """
    head = graph.head()
    inside = {op.index for op in head}
    moved: set[int] = set()
    for op in head:
        producer = graph.producer.get(op.inputs[0])
        if op.kind in _MOVES and producer is not None and (producer.index not in inside or producer.index in moved):
            moved.add(op.index)
    kept = tuple(op for op in head if op.index not in moved)
    if not kept:
        raise RecipeError(
            "head='float' matched nothing: no arithmetic lies between the last trained layers and the outputs of this "
            "model; use head='int8'"
        )
    return Rule("Head #3", "float", kept)


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
    weights = {"channel": qtyping.QuantGranularity.CHANNELWISE, "tensor": qtyping.QuantGranularity.TENSORWISE}
    every = qtyping.TFLOperationName.ALL_SUPPORTED
    for rule in rules:
        scope = ".*" if rule.operations is None else _scope(rule, graph)
        if rule.precision == "int8":
            manager.add_static_config(scope, every, 8, 8, weights[granularity])
        else:
            manager.add_quantization_config(scope, every, algorithm_key="no_quantize")
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
    chosen = {names[index] for index in wanted}
    shared = {name for index, name in names.items() if index not in wanted} & chosen
    if shared:
        raise RecipeError(f"the rule for {rule.scope} would also match other operations named {sorted(shared)[0]!r}")
    return "^(" + "|".join(re.escape(name) for name in sorted(chosen)) + ")$"
