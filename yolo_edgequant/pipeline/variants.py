"""One model in 8 bits in several ways, each of which spares it some of its roundings: the files of a sensitivity table.

An operation that stays in float is left out of the file's recipe, as ``precision="auto"`` does. What a recipe cannot
leave out is rounded in the float graph: all weights or all activations alone, and all activations but some.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..tflite import isolation, positions
from ..tflite.graph import Graph, Operation
from ..tflite.recipe import Rule
from .tflite import TFLiteBuild


@dataclass(frozen=True)
class Variant:
    """A way to make the file.

    Attributes:
        name: of what is in float, or alone in 8 bits.
        kind: ``alone``, the rest in float; ``in float``, the rest in 8 bits; ``not rounded``, the rest rounded in the
            float graph.
        make: gives the file's bytes.
    """

    name: str
    kind: str
    make: Callable[[], bytes]


def variants(build: TFLiteBuild, by_layer: bool = False) -> list[Variant]:
    """The ways to make a model's file that a sensitivity table is of.

    Args:
        build: calibrated.
        by_layer: also with each layer in float.

    Raises:
        RecipeError: the last convolutions were not found.
    """
    graph, quantized = build.calibrated.graph, Graph(build.quantize())
    scores, boxes = positions.last_layers(graph, build.calibrated.logits)
    layers = graph.layers()
    stem = next(iter(layers.values()))
    weights = isolation.rounded_weights(graph, quantized)

    def kept(name: str, operations: Iterable[Operation]) -> Variant:
        rule = Rule(name, True, tuple(operations))
        return Variant(name, "in float", lambda: build.with_rule(rule))

    def exact(name: str, tensors: Iterable[int] = ()) -> Variant:
        places = frozenset(tensors)
        return Variant(name, "not rounded", lambda: isolation.rounded_activations(weights, quantized, places).content)

    rows = [
        Variant("weights", "alone", lambda: weights.content),
        Variant("activations", "alone", lambda: isolation.rounded_activations(graph, quantized).content),
        kept("stem", stem),
        kept("last convolutions of scores", scores),
        kept("last convolutions of boxes", boxes),
        kept("both", [*scores, *boxes]),
        kept("stem and both", [*stem, *scores, *boxes]),
    ]
    if joins := positions.joins(graph):
        rows.append(kept("concatenations", joins))
    rows += [
        exact("nothing"),
        exact("inputs of the last convolutions", (op.inputs[0] for op in (*scores, *boxes))),
    ]
    rows += [exact(f"SiLU's {part}", tensors) for part, tensors in positions.silu_tensors(graph).items()]
    if by_layer:
        rows += [kept(name, operations) for name, operations in layers.items()]
    return rows
