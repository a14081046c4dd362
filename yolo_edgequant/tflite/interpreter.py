"""Running a ``.tflite`` model on images: its outputs, and every tensor inside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from ..processes import return_memory, usable_threads
from ..runtime.interpreter import Run, Tensor, TFLite, open_tflite
from .graph import Graph


def run(content: bytes, images: Iterable[np.ndarray]) -> Run:
    """The outputs of a ``.tflite`` file for images, float32 with values 0 to 1 and of the input's shape."""
    run = run_in_turn(content, images)
    return Run(run.tensors, list(run.outputs))


def run_in_turn(content: bytes, images: Iterable[np.ndarray]) -> Run:
    """The same, but that an image runs when its outputs are asked for, and they are not kept."""
    interpreter = TFLite(content, usable_threads())

    def outputs() -> Iterator[list[np.ndarray]]:
        for image in images:
            return_memory()  # of the image before, or the heap grows with every one
            yield interpreter.run(interpreter.input.stored(image))

    return Run(interpreter.outputs, outputs())


def activations(graph: Graph, image: np.ndarray) -> dict[int, np.ndarray]:
    """Every activation of a float graph for an image of the input's shape, float32, by tensor index."""
    interpreter, source, _ = open_tflite(graph.content, usable_threads(), keep_all=True)
    interpreter.set_tensor(source["index"], image)
    interpreter.invoke()
    return {tensor: interpreter.get_tensor(tensor) for tensor in graph.activations()}


def values(graph: Graph, image: np.ndarray) -> dict[str, np.ndarray]:
    """Every number that a graph computes for an image, float32, by the tensor's name."""
    interpreter, source, _ = open_tflite(graph.content, 1, keep_all=True)
    interpreter.set_tensor(source["index"], Tensor.of(source).stored(image))
    interpreter.invoke()
    computed = {tensor for op in graph.operations for tensor in op.outputs}
    details = [d for d in interpreter.get_tensor_details() if d["index"] in computed and _is_number(d)]
    return {d["name"]: Tensor.of(d).values(interpreter.get_tensor(d["index"])) for d in details}


def steps(graph: Graph) -> list[tuple[str, list[str]]]:
    """Every computed tensor in order, each with what it is made of, by name."""
    return [
        (graph.name(t), [graph.name(source) for source in op.inputs]) for op in graph.operations for t in op.outputs
    ]


def _is_number(details: dict) -> bool:
    return details["dtype"] == np.float32 or (details["dtype"] == np.int8 and details["quantization"][0] > 0)
