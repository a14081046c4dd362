from dataclasses import replace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from yolo_edgequant.contract import Contract, Output, Raw, TopK
from yolo_edgequant.decoding import in_torch, raw
from yolo_edgequant.runtime.interpreter import Tensor
from yolo_edgequant.runtime.outputs import RawReader


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
