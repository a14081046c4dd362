import numpy as np
import pytest

from yolo_edgequant.contract import Contract
from yolo_edgequant.pipeline.tflite import TFLiteBuild
from yolo_edgequant.pipeline.variants import variants
from yolo_edgequant.tflite.calibrated import calibrate
from yolo_edgequant.tflite.graph import Graph

from .fakes import CONTRACT

pytestmark = pytest.mark.export


@pytest.fixture(scope="module")
def build(graph, images):
    contract = Contract(**{**vars(CONTRACT), "head": "float", "io": "float"})
    return TFLiteBuild(calibrate(graph, images[:2]), contract, {}, [], (160, 160))


@pytest.fixture(scope="module")
def files(build):
    """The graph of each file, by kind and name."""
    return {(one.kind, one.name): Graph(one.make()) for one in variants(build) if one.name != "stem and both"}


def in_float(graph):
    """The names of what is computed in float."""
    return {graph.name(t) for op in graph.operations for t in op.outputs if graph.dtype(t) == "FLOAT32"}


def test_all_positions_have_a_row(files):
    kinds = [kind for kind, _ in files]
    assert {kind: kinds.count(kind) for kind in kinds} == {"alone": 2, "in float": 5, "not rounded": 5}


def test_what_a_row_names_is_in_float_and_all_else_is_as_in_the_file(build, files):
    graph, as_it_is = build.calibrated.graph, in_float(Graph(build.quantize()))
    layers = list(graph.layers().items())
    stem = {graph.name(op.outputs[0]) for op in layers[0][1]}
    more = {name: in_float(file) - as_it_is for (kind, name), file in files.items() if kind == "in float"}
    assert {n for n in more["stem"] if not n.endswith(("_quantized", "_dequant"))} == stem
    scores, boxes = (more[f"last convolutions of {what}"] for what in ("scores", "boxes"))
    assert scores
    assert boxes
    assert more["both"] == scores | boxes
    joined = {graph.name(op.outputs[0]) for op in graph.operations if op.kind == "CONCATENATION"}
    assert joined & more["concatenations"]


def test_one_kind_of_rounding_alone(build, files):
    graph = build.calibrated.graph
    weights, activations = files["alone", "weights"], files["alone", "activations"]
    assert not {"QUANTIZE", "DEQUANTIZE"} & {op.kind for op in weights.operations}
    assert {"QUANTIZE", "DEQUANTIZE"} <= {op.kind for op in activations.operations}
    kernels = [
        [file.constant(op.kernel) for op in file.operations if op.kernel is not None]
        for file in (graph, weights, activations, files["not rounded", "nothing"])
    ]
    same = [all(np.array_equal(a, b) for a, b in zip(kernels[0], other, strict=True)) for other in kernels]
    assert same == [True, False, True, False]


def test_in_the_float_graph_each_row_rounds_less_than_the_one_that_spares_nothing(files):
    roundings = {
        name: sum(op.kind == "QUANTIZE" for op in file.operations)
        for (kind, name), file in files.items()
        if kind == "not rounded"
    }
    silus = roundings["nothing"] - roundings["SiLU's sigmoid"]
    assert roundings["nothing"] - roundings["SiLU's input"] == silus > 20
    assert roundings["nothing"] - roundings["SiLU's product"] >= silus
    assert roundings["nothing"] - roundings["inputs of the last convolutions"] == 6


def test_layer_by_layer(build):
    rows = variants(build, by_layer=True)
    names = [row.name for row in rows if row.kind == "in float"]
    assert names[6:] == list(build.layers)
    file = Graph(rows[-1].make())
    assert names[-1] in in_float(file)
