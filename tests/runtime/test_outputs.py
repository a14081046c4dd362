from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import graphs
from yolo_edgequant.contract import Contract, Output, Raw, TopK
from yolo_edgequant.decoding import in_numpy, in_torch, raw
from yolo_edgequant.errors import ContractError
from yolo_edgequant.runtime.interpreter import Tensor
from yolo_edgequant.runtime.outputs import DecodedReader, FinalReader, RawReader, Scores, choose, reader


@st.composite
def heads(draw):
    """A raw file's outputs of any shape that a head can have."""
    strides = draw(st.sampled_from([[8, 16, 32], [4, 8, 16, 32], [16], [8, 16, 32, 64]]))
    step = strides[-1]
    size = (draw(st.integers(1, 4)) * step, draw(st.integers(1, 4)) * step)
    task = draw(st.sampled_from(["detect", "segment", "pose", "pose without visibility", "obb"]))
    return {
        "strides": strides,
        "size": size,
        "reg_max": draw(st.sampled_from([1, 16])),
        "classes": draw(st.sampled_from([1, 3, 64, 80])),
        "task": task,
        "cells_first": draw(st.booleans()),
        "top_k": draw(st.sampled_from([None, TopK(30, False), TopK(30, True)])),
        "stored": draw(st.sampled_from([np.int8, np.uint8, np.float32])),
        "confidence": draw(st.sampled_from([0.001, 0.25, 0.5, 0.9])),
        "seed": draw(st.integers(0, 2**32 - 1)),
    }


@given(heads())
@settings(max_examples=150, deadline=None)
def test_numpy_decodes_as_torch_does(head):
    random = np.random.default_rng(head["seed"])
    if head["top_k"]:  # an export asks for as many as there are cells at most
        everywhere = sum((head["size"][0] // s) * (head["size"][1] // s) for s in head["strides"])
        head["top_k"] = replace(head["top_k"], count=min(30, everywhere))
    extra = {
        "segment": {"mask_coefficient": 5},
        "pose": {"kpts": 8, "visibility": 4},
        "pose without visibility": {"kpts": 8},
        "obb": {"angle": 1},
    }
    branches = {"boxes": 4 * head["reg_max"], "scores": head["classes"], **extra.get(head["task"], {})}
    task = head["task"].split()[0]
    shape = ((4, 3) if head["task"] == "pose" else (4, 2)) if task == "pose" else None
    contract = Contract(
        task=task,
        names={i: f"class{i}" for i in range(head["classes"])},
        stride=max(head["strides"]),
        end2end=head["top_k"] is not None,
        nms=False,
        kpt_shape=shape,
        head="raw",
        granularity="channel",
        ranges="activation",
        corrections="all",
        io="int8",
        channels_last=True,
        outputs=tuple(Output(name, stride) for name in branches for stride in head["strides"]),
        strides=tuple(head["strides"]),
        raw=Raw(head["cells_first"], head["reg_max"], (2.0, -0.5)),
        top_k=head["top_k"],
    )
    tensors, outputs, parts = [], [], {}

    def layout(cells, channels):
        return (1, cells, channels) if head["cells_first"] else (1, channels, cells)

    for output in contract.outputs:
        cells = (head["size"][0] // output.stride) * (head["size"][1] // output.stride)
        channels = branches[output.name]
        if head["stored"] == np.float32:
            tensor = Tensor(layout(cells, channels), np.dtype(np.float32))
            stored = random.normal(0, 3, (1, cells, channels)).astype(np.float32)
        else:
            limits = np.iinfo(head["stored"])
            tensor = Tensor(layout(cells, channels), np.dtype(head["stored"]), 0.05, int(random.integers(-20, 20)))
            stored = random.integers(limits.min, limits.max + 1, (1, cells, channels)).astype(head["stored"])
        values = torch.from_numpy(tensor.values(stored)).transpose(1, 2)
        parts.setdefault(output.name, []).append(values)
        tensors.append(tensor)
        outputs.append(stored if head["cells_first"] else np.ascontiguousarray(stored.transpose(0, 2, 1)))
    read = RawReader(contract, tensors, head["size"]).candidates(outputs, head["confidence"], False)

    joined = {name: torch.cat(levels, 2) for name, levels in parts.items()}
    grid = in_torch.Grid.of(head["size"], head["strides"])
    expected = raw.detections(joined, grid, contract.raw, shape, corners=True)
    factors = in_torch.pixel_factors(head["size"], head["classes"], expected.shape[1], shape)
    expected = expected * torch.tensor(factors).view(1, -1, 1)
    if head["top_k"]:
        rows = raw.top_k(expected, head["classes"], head["top_k"])[0].numpy()
        rows = rows[rows[:, 4] > head["confidence"]]
    else:
        best, label = expected[0, 4 : 4 + head["classes"]].max(0)
        rest = expected[0, 4 + head["classes"] :]
        rows = torch.cat((expected[0, :4], best[None], label[None].float(), rest)).T.numpy()
        rows = rows[rows[:, 4] > head["confidence"]]
    assert len(read.scores) == len(rows)
    np.testing.assert_allclose(read.scores, rows[:, 4], atol=1e-6)
    if head["stored"] == np.float32:
        np.testing.assert_array_equal(read.classes, rows[:, 5])
    longest = max(head["size"])
    same = read.classes == rows[:, 5]  # scores of 8 bits that round to one float32 may come in another order
    assert same.mean() > 0.9 if len(same) else True
    np.testing.assert_allclose(read.boxes[same][:, :4], rows[same, :4], atol=1e-4 * longest)
    rest = read.boxes[:, 4:] if task == "obb" else read.extra
    np.testing.assert_allclose(rest[same].ravel(), rows[same, 6:].ravel(), atol=1e-4 * longest)


SIZE = (64, 96)
CELLS = 8 * 12 + 4 * 6 + 2 * 3
KINDS = {
    "raw": (RawReader, graphs.contract("raw")),
    "decoded": (DecodedReader, graphs.contract()),
    "top_k": (DecodedReader, graphs.contract(end2end=True, top_k=TopK(5, False))),
    "NMS-free": (FinalReader, graphs.contract("float", end2end=True)),
    "NMS inside": (FinalReader, graphs.contract("float", nms=True)),
}


def floats(*shape):
    return Tensor(shape, np.dtype(np.float32))


@pytest.mark.parametrize("kind", KINDS)
def test_the_contract_decides_who_reads(kind):
    expected, contract = KINDS[kind]
    if contract.raw is not None:
        tensors = [
            floats(1, (64 // output.stride) * (96 // output.stride), {"boxes": 64, "scores": 4}[output.name])
            for output in contract.outputs
        ]
    else:
        tensors = [floats(1, 8, CELLS) if expected is DecodedReader else floats(1, 300, 6)]
    assert type(reader(contract, tensors, SIZE)) is expected


def detections(extra=0, seed=0, classes=4):
    """Decoded cells (1, 4 + nc + extra, A): boxes as shares of the input around the cells, few scores over 0.25."""
    random = np.random.default_rng(seed)
    boxes = np.concatenate((random.uniform(0.1, 0.9, (2, CELLS)), random.uniform(0.05, 0.4, (2, CELLS))))
    scores = random.random((classes, CELLS)) ** 6
    return np.concatenate((boxes, scores, random.uniform(-1, 1, (extra, CELLS))))[None].astype(np.float32)


def expected_rows(values, conf, classes=4):
    """(N, 6 + extra): corners in pixels, score, class and the rest of the cells over `conf`, in order."""
    cells = values[0].T
    scores = cells[:, 4 : 4 + classes]
    cells, scores = cells[scores.max(1) > conf], scores[scores.max(1) > conf]
    boxes = cells[:, :4] * np.array([96, 64, 96, 64])
    corners = np.concatenate((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2), 1)
    return np.column_stack((corners, scores.max(1), scores.argmax(1), cells[:, 4 + classes :]))


@pytest.mark.parametrize("stored", [np.float32, np.int8, np.uint8])
def test_decoded_cells(stored):
    values = detections()
    tensor = (
        floats(1, 8, CELLS)
        if stored is np.float32
        else Tensor((1, 8, CELLS), np.dtype(stored), 1 / 255, np.iinfo(stored).min)
    )
    outputs = [tensor.stored(values)]
    found = reader(graphs.contract(), [tensor], SIZE).candidates(outputs, 0.25, False)
    rows = expected_rows(tensor.values(outputs[0]), 0.25)
    assert len(found) == len(rows) > 10
    np.testing.assert_allclose(found.boxes, rows[:, :4], atol=1e-3)
    np.testing.assert_allclose(found.scores, rows[:, 4], atol=1e-6)
    assert found.classes.tolist() == rows[:, 5].tolist()
    assert found.extra.shape == (len(rows), 0)


def test_decoded_cells_in_pixels():
    values = detections()
    values[:, :4] *= np.array([96, 64, 96, 64], np.float32)[:, None]
    found = reader(graphs.contract(normalised=False), [floats(1, 8, CELLS)], SIZE).candidates([values], 0.25, False)
    np.testing.assert_allclose(found.boxes, expected_rows(detections(), 0.25)[:, :4], atol=1e-3)


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize(
    ("task", "name", "extra"), [("segment", "mask_coefficient", 5), ("pose", "kpts", 15), ("obb", "angle", 1)]
)
def test_what_a_task_adds_together_or_apart(task, name, extra, apart):
    values = detections(extra)
    names, outputs = ["detections"], [values]
    if apart:
        names, outputs = [name, "detections"], [values[:, 8:], values[:, :8]]
    if task == "segment":
        names, outputs = [*names, "prototypes"], [*outputs, np.ones((1, 16, 24, extra), np.float32)]
    contract = graphs.contract(
        task=task, kpt_shape=(5, 3) if task == "pose" else None, outputs=tuple(Output(n) for n in names)
    )
    read = reader(contract, [floats(*output.shape) for output in outputs], SIZE)
    found = read.candidates(outputs, 0.25, False)
    rows = expected_rows(values, 0.25)
    if task == "obb":
        centres = (rows[:, :2] + rows[:, 2:4]) / 2
        expected = np.column_stack((centres, rows[:, 2:4] - rows[:, :2], rows[:, 6]))
        np.testing.assert_allclose(found.boxes, expected, atol=1e-3)
        return
    np.testing.assert_allclose(found.boxes, rows[:, :4], atol=1e-3)
    expected = rows[:, 6:]
    if task == "pose":
        expected = expected.reshape(-1, 5, 3) * np.array([96, 64, 1])
    np.testing.assert_allclose(found.extra, expected, atol=1e-3)
    if task == "segment":
        assert read.prototypes(outputs).shape == (5, 16, 24)
        assert found[1:3].extra.shape == (2, 5)


def test_boxes_that_are_not_turned_yet():
    values = detections(1)
    contract = graphs.contract(task="obb", outputs=(Output("detections"), Output("angle")))
    outputs = [values[:, :8], values[:, 8:]]
    tensors = [floats(*output.shape) for output in outputs]
    flat = reader(contract, tensors, SIZE).candidates(outputs, 0.25, False)
    unturned = replace(contract, unturned=True, strides=(8, 16, 32))
    turned = reader(unturned, tensors, SIZE).candidates(outputs, 0.25, False)
    cells = np.flatnonzero(values[0, 4:8].max(0) > 0.25)
    centres, _ = in_numpy.cells(cells, (8, 16, 32), SIZE)
    expected = in_numpy.turned(flat.boxes[:, :4], flat.boxes[:, 4:], centres)
    np.testing.assert_allclose(turned.boxes[:, :4], expected, atol=1e-4)
    assert np.abs(turned.boxes - flat.boxes).max() > 1
    with pytest.raises(ContractError, match=rf"\(1, 8, {CELLS}\) where the metadata means \(1, 8, 96\)"):
        reader(replace(unturned, strides=(8,)), tensors, SIZE)


def test_final_rows_are_taken_as_they_are():
    rows = np.array([[0.1, 0.2, 0.3, 0.4, 0.9, 2], [0.5, 0.5, 0.6, 0.7, 0.3, 0], [0, 0, 1, 1, 0.2, 3]], np.float32)
    read = reader(graphs.contract("float", nms=True), [floats(1, 3, 6)], SIZE)
    found = read.detections([rows[None]], 0.25, 0.0, 300, False)
    np.testing.assert_allclose(found.boxes, rows[:2, :4] * np.array([96, 64, 96, 64]), rtol=1e-6)
    assert found.classes.tolist() == [2, 0]
    assert len(read.detections([rows[None]], 0.1, 0.0, 1, False)) == 1
    rows[2, 5] = 4
    assert len(read.candidates([rows[None]], 0.25, False)) == 2
    with pytest.raises(ContractError, match="the file found class 4, and its metadata names 4"):
        read.candidates([rows[None]], 0.1, False)
    rows[2, 5] = np.nan
    with pytest.raises(ContractError, match="the file found class -"), np.errstate(invalid="ignore"):
        read.candidates([rows[None]], 0.1, False)


def test_overlaps_and_classes_are_the_readers():
    values = np.zeros((1, 8, CELLS), np.float32)
    box, beside = [0.5, 0.5, 0.4, 0.4], [0.52, 0.5, 0.4, 0.4]
    for cell, (place, kind, score) in enumerate(((box, 0, 0.9), (beside, 0, 0.8), (beside, 1, 0.7))):
        values[0, :4, cell], values[0, 4 + kind, cell] = place, score
    read = reader(graphs.contract(), [floats(1, 8, CELLS)], SIZE)

    def scores(**more):
        settings = {"conf": 0.25, "iou": 0.5, "max_det": 300, "agnostic_nms": False} | more
        return read.detections([values], **settings).scores.round(2).tolist()

    assert scores() == pytest.approx([0.9, 0.7])
    assert scores(iou=0.99) == pytest.approx([0.9, 0.8, 0.7])
    assert scores(agnostic_nms=True) == pytest.approx([0.9])
    assert scores(max_det=1) == pytest.approx([0.9])
    assert scores(conf=0.75, iou=0.99) == pytest.approx([0.9, 0.8])
    assert scores(classes=np.array([1])) == pytest.approx([0.7])


@pytest.mark.parametrize(
    ("contract", "shapes", "said"),
    [
        (graphs.contract(), [(1, 8, 99), (1, 1, 99)], "the file has 2 outputs and its metadata 1"),
        (graphs.contract(), [(1, 9, 99)], r"shape \(1, 9, 99\) where the metadata means \(1, 8, any\)"),
        (graphs.contract(), [(1, 8)], r"'detections' has shape \(1, 8\)"),
        (graphs.contract("float", nms=True), [(1, 99, 5)], r"where the metadata means \(1, any, 6\)"),
        (
            graphs.contract(task="segment", outputs=(Output("detections"), Output("prototypes"))),
            [(1, 7, 99), (1, 4, 4, 32)],
            "has 7 channels for 4 classes",
        ),
        (
            graphs.contract(task="segment", outputs=(Output("detections"), Output("prototypes"))),
            [(1, 8 + 31, 99), (1, 4, 4, 32)],
            r"'prototypes' has shape \(1, 4, 4, 32\) where the metadata means \(1, any, any, 31\)",
        ),
        (
            graphs.contract("float", nms=True, task="segment", outputs=(Output("prototypes"), Output("detections"))),
            [(1, 4, 4, 32), (1, 300, 6 + 5)],
            r"where the metadata means \(1, any, any, 5\)",
        ),
        (
            graphs.contract("float", nms=True, task="segment", outputs=(Output("detections"), Output("prototypes"))),
            [(1, 300, 5), (1, 4, 4, 32)],
            "has rows of 5 values, not 6 or more",
        ),
        (graphs.contract("raw"), [(1, 96, 63)] * 6, r"output 'boxes_8' has shape \(1, 96, 63\)"),
    ],
)
def test_outputs_that_the_contract_does_not_mean(contract, shapes, said):
    with pytest.raises(ContractError, match=said):
        reader(contract, [floats(*shape) for shape in shapes], SIZE)


@pytest.mark.parametrize("cells_first", [True, False])
def test_prototypes_of_raw_files_are_as_many_as_their_weights(cells_first):
    parts = {"boxes": 64, "scores": 4, "mask_coefficient": 5}
    outputs = (*(Output(name, stride) for name in parts for stride in graphs.STRIDES), Output("prototypes"))
    contract = graphs.contract("raw", task="segment", outputs=outputs, raw=Raw(cells_first, 16))
    tensors = []
    for output in outputs[:-1]:
        cells, channels = (64 // output.stride) * (96 // output.stride), parts[output.name]
        tensors.append(floats(1, cells, channels) if cells_first else floats(1, channels, cells))
    reader(contract, [*tensors, floats(1, 16, 24, 5)], SIZE)
    with pytest.raises(ContractError, match=r"where the metadata means \(1, any, any, 5\)"):
        reader(contract, [*tensors, floats(1, 16, 24, 6)], SIZE)


@pytest.mark.parametrize("logits", [True, False])
@pytest.mark.parametrize("stored", [np.float32, np.int8, np.uint8])
@pytest.mark.parametrize("conf", [0.0, 0.001, 0.25, 0.5, 0.999, 1.0])
def test_the_search_finds_the_scores_over_the_threshold(logits, stored, conf):
    tensor = floats(3, 400)
    values = (
        np.random.default_rng(0).normal(0, 4, (3, 400)).astype(np.float32)
        if logits
        else np.random.default_rng(0).random((3, 400), np.float32)
    )
    if stored is not np.float32:
        tensor = Tensor((3, 400), np.dtype(stored), 0.05 if logits else 1 / 255, 10 if logits else np.iinfo(stored).min)
    numbers = tensor.stored(values)
    scores = tensor.values(numbers)
    scores = in_numpy.sigmoid(scores) if logits else scores
    search = Scores(tensor, logits)
    np.testing.assert_array_equal(search.above(numbers, conf), np.flatnonzero(scores.ravel() > np.float32(conf)))
    np.testing.assert_allclose(search.scores(numbers), scores, atol=1e-6)


def test_a_cell_goes_on_as_its_best_class_or_as_all_it_may_be():
    scores = np.array([[0.1, 0.9], [0.8, 0.7], [0.3, 0.2], [0.6, 0.6]], np.float32)

    def chosen(*arguments):
        return [tuple(row) for row in np.column_stack(choose(scores, 0.25, *arguments)).round(2).tolist()]

    assert chosen(False, None) == [(0, 0.9, 1), (1, 0.8, 0), (2, 0.3, 0), (3, 0.6, 0)]
    assert chosen(False, TopK(3, False)) == [(0, 0.9, 1), (1, 0.8, 0), (1, 0.7, 1)]
    assert chosen(False, TopK(3, True)) == chosen(True, TopK(3, False)) == [(0, 0.9, 1), (1, 0.8, 0), (3, 0.6, 0)]
    assert chosen(False, TopK(300, False)) == [
        *((0, 0.9, 1), (1, 0.8, 0), (1, 0.7, 1), (3, 0.6, 0), (3, 0.6, 1), (2, 0.3, 0)),
    ], "what is under the threshold does not come by way of its cell"
    every = [(0, 0.9, 1), (1, 0.8, 0), (1, 0.7, 1), (2, 0.3, 0), (3, 0.6, 0), (3, 0.6, 1)]
    assert chosen(False, None, True) == every, "as in Ultralytics' validation"
    assert chosen(False, TopK(3, True), True) == chosen(False, TopK(3, True)), "an NMS-free file has its own choice"


#: What a task's raw outputs are called, and their channels.
BRANCHES = {
    "detect": {"boxes": 64, "scores": 4},
    "segment": {"boxes": 64, "scores": 4, "mask_coefficient": 5},
    "pose": {"boxes": 64, "scores": 4, "kpts": 10, "visibility": 5},
    "obb": {"boxes": 64, "scores": 4, "angle": 1},
}
GRIDS = [(64 // stride, 96 // stride) for stride in graphs.STRIDES]


def raw_file(task, arrangement, cells_first, stored):
    """A contract, its tensors and the same drawn numbers in an arrangement, as a file stores them."""
    random = np.random.default_rng(0)
    outputs, tensors, values = [], [], []
    for name, channels in BRANCHES[task].items():
        numbers = random.normal(-2 if name == "scores" else 0, 2, (1, CELLS, channels)).astype(np.float32)
        levels = np.split(numbers, np.cumsum([rows * columns for rows, columns in GRIDS])[:-1], 1)
        if arrangement == "grid":
            levels = [level.reshape(1, *grid, channels) for level, grid in zip(levels, GRIDS, strict=True)]
        elif arrangement == "merged":
            levels = [numbers]
        for level, stride in zip(levels, [None] if arrangement == "merged" else graphs.STRIDES, strict=True):
            level = level if cells_first else np.ascontiguousarray(np.moveaxis(level, -1, 1))
            tensor = Tensor(level.shape, np.dtype(stored), *((0.05, 3) if stored is np.int8 else ()))
            outputs.append(Output(name, stride))
            tensors.append(tensor)
            values.append(tensor.stored(level) if stored is np.int8 else level)
    if task == "segment":
        outputs.append(Output("prototypes"))
        tensors.append(floats(1, 16, 24, 5))
        values.append(np.ones((1, 16, 24, 5), np.float32))
    facts = {"task": task, "kpt_shape": (5, 3) if task == "pose" else None, "outputs": tuple(outputs)}
    raw = Raw(cells_first, 16, (2.0, -0.5) if task == "pose" else None, arrangement)
    return graphs.contract("raw", **facts | {"raw": raw}), tensors, values


@pytest.mark.parametrize("stored", [np.float32, np.int8])
@pytest.mark.parametrize("cells_first", [True, False])
@pytest.mark.parametrize("task", BRANCHES)
@pytest.mark.parametrize("arrangement", ["merged", "grid"])
def test_merged_outputs_and_maps_give_what_levels_give(arrangement, task, cells_first, stored):
    def found(arrangement):
        contract, tensors, values = raw_file(task, arrangement, cells_first, stored)
        return reader(contract, tensors, SIZE).detections(values, 0.25, 0.5, 300, False)

    levels, other = found("levels"), found(arrangement)
    assert len(levels) >= 10
    assert other.classes.tolist() == levels.classes.tolist()
    for name in ("boxes", "scores", "extra"):
        np.testing.assert_array_equal(getattr(other, name), getattr(levels, name))


@pytest.mark.parametrize("cells_first", [True, False])
@pytest.mark.parametrize("arrangement", ["levels", "merged", "grid"])
def test_raw_outputs_in_another_arrangement_are_refused(arrangement, cells_first):
    contract, tensors, _ = raw_file("detect", arrangement, cells_first, np.float32)
    reader(contract, tensors, SIZE)
    first = r"'boxes' has" if arrangement == "merged" else r"'boxes_8' has"
    for other in {"levels", "merged", "grid"} - {arrangement}:
        _, wrong, _ = raw_file("detect", other, cells_first, np.float32)
        if "merged" in (arrangement, other):
            with pytest.raises(ContractError, match="outputs and its metadata"):
                reader(contract, wrong, SIZE)
            continue
        with pytest.raises(ContractError, match=first):
            reader(contract, wrong, SIZE)
    _, swapped, _ = raw_file("detect", arrangement, not cells_first, np.float32)
    with pytest.raises(ContractError, match=first):
        reader(contract, swapped, SIZE)
    shape = tensors[0].shape
    for axis in range(1, len(shape)):
        wrong = floats(*(n + (k == axis) for k, n in enumerate(shape)))
        with pytest.raises(ContractError, match=first):
            reader(contract, [wrong, *tensors[1:]], SIZE)
