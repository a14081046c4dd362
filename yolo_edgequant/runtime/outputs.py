"""From a file's outputs to candidates, by the contract in its metadata (docs/metadata.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..heads import candidates
from .interpreter import Tensor


@dataclass(frozen=True)
class Candidates:
    """What may be an object, in pixels of the model's input.

    Attributes:
        boxes: (N, 4) float32 x1, y1, x2, y2; for obb (N, 5) centre x, centre y, width, height, angle.
        scores: (N,) float32.
        classes: (N,) int64.
        extra: (N, C) float32 mask coefficients, (N, K, D) keypoints, or (N, 0).
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    extra: np.ndarray

    def chosen(self, which: np.ndarray) -> Candidates:
        """Those that an index or a mask names."""
        return Candidates(self.boxes[which], self.scores[which], self.classes[which], self.extra[which])


class Reader(Protocol):
    """Reads the outputs of one kind of file."""

    def read(self, outputs: list[np.ndarray], confidence: float, agnostic: bool) -> Candidates:
        """The candidates with a score over `confidence`; those of NMS-free files are final, the best first."""


def reader(metadata: Mapping[str, Any], tensors: Sequence[Tensor], size: tuple[int, int]) -> Reader:
    """The reader for a file.

    Args:
        metadata: of the file.
        tensors: its outputs.
        size: (height, width) of its input.
    """
    contract = metadata["edgequant"]
    kind = RawReader if "raw" in contract else DecodedReader
    if is_final(metadata) and "top_k" not in contract:
        kind = EndReader
    return kind(metadata, tensors, size)


def is_final(metadata: Mapping[str, Any]) -> bool:
    """True if what a reader gives needs no NMS: the model is NMS-free, or its file ends in NMS."""
    return bool(metadata["end2end"] or metadata["args"].get("nms"))


def prototypes(metadata: Mapping[str, Any], tensors: Sequence[Tensor], outputs: Sequence[np.ndarray]) -> np.ndarray:
    """(C, h, w) float32: the maps that mask coefficients weigh."""
    contract = metadata["edgequant"]
    names = [output["name"] for output in contract.get("raw", contract)["outputs"]]
    position = names.index("prototypes")
    values = tensors[position].values(outputs[position])[0]
    return values.transpose(2, 0, 1) if contract["layout"] == "NHWC" else values


class Scores:
    """A tensor of scores, or of their logits, that is searched as it is stored.

    A stored 8-bit number stands for one score, and the scores of rising numbers rise: the threshold is a number, too,
    and only the candidates are ever turned into scores.

    Args:
        tensor: the output.
        logits: its values are logits.
    """

    def __init__(self, tensor: Tensor, logits: bool) -> None:
        self._logits = logits
        self._table = None if tensor.dtype == np.float32 else self._score(tensor.table())

    def _score(self, values: np.ndarray) -> np.ndarray:
        return candidates.sigmoid(values) if self._logits else values

    def above(self, stored: np.ndarray, confidence: float) -> np.ndarray:
        """Flat positions, in order, of the scores over `confidence`."""
        flat = stored.ravel()
        if self._table is not None:
            first = int(np.searchsorted(self._table, np.float32(confidence), side="right"))
            lowest = np.iinfo(stored.dtype).min
            return np.flatnonzero(flat >= lowest + first) if first < 256 else np.empty(0, np.int64)
        if not self._logits:
            return np.flatnonzero(flat > np.float32(confidence))
        share = np.clip(confidence, 1e-12, 1 - 1e-12)
        nearly = np.flatnonzero(flat > np.float32(np.log(share / (1 - share)) - 1e-3))
        return nearly[self._score(flat[nearly]) > np.float32(confidence)]  # the exact test, of the few

    def scores(self, stored: np.ndarray) -> np.ndarray:
        """Stored numbers as float32 scores."""
        if self._table is None:
            return self._score(stored)
        return self._table[stored.astype(np.intp) - np.iinfo(stored.dtype).min]


class RawReader:
    """Outputs of the detection convolutions: only the candidates are decoded."""

    def __init__(self, metadata: Mapping[str, Any], tensors: Sequence[Tensor], size: tuple[int, int]) -> None:
        contract = metadata["edgequant"]
        self._facts, self._choice, self._size = contract["raw"], contract.get("top_k"), size
        self._cells_first = self._facts["order"] == "cells, channels"
        self._parts: dict[str, list[tuple[int, Tensor]]] = {}
        for position, output in enumerate(self._facts["outputs"]):
            self._parts.setdefault(output["name"], []).append((position, tensors[position]))
        self._scores = [Scores(tensor, logits=True) for _, tensor in self._parts["scores"]]

    def read(self, outputs: list[np.ndarray], confidence: float, agnostic: bool) -> Candidates:
        """See :class:`Reader`."""
        levels = [self._level(number, outputs, confidence) for number in range(len(self._scores))]
        index = [cells for cells, _ in levels]
        scores = np.concatenate([scores for _, scores in levels])
        chosen, scores, classes = choose(scores, confidence, agnostic, self._choice)

        def part(name: str) -> np.ndarray:
            """(N, C) float32 values of the chosen cells."""
            found = [
                tensor.values(self._rows(outputs[position][0], cells))
                for (position, tensor), cells in zip(self._parts[name], index, strict=True)
            ]
            return np.concatenate(found)[chosen]

        strides = self._facts["strides"]
        counts = [(self._size[0] // s) * (self._size[1] // s) for s in strides]
        starts = np.cumsum([0, *counts[:-1]])
        everywhere = np.concatenate([cells + start for cells, start in zip(index, starts, strict=True)])[chosen]
        place = candidates.cells(everywhere, strides, self._size)
        distances = candidates.distances(part("boxes"), self._facts["reg_max"])
        extra = np.empty((len(scores), 0), np.float32)
        if "angle" in self._parts:
            angle = part("angle")
            boxes = np.concatenate((candidates.rotated_boxes(distances, angle, *place), angle), 1)
        else:
            boxes = candidates.boxes(distances, *place)
        if "mask_coefficient" in self._parts:
            extra = part("mask_coefficient")
        if "kpts" in self._parts:
            shape, keypoint = tuple(self._facts["kpt_shape"]), self._facts["keypoint"]
            points = part("kpts").reshape(-1, shape[0], 2)
            if "visibility" in self._parts:
                points = np.concatenate((points, part("visibility")[:, :, None]), 2)
            extra = candidates.keypoints(points, shape, *keypoint, *place)
        return Candidates(boxes, scores, classes, extra)

    def _level(self, number: int, outputs: list[np.ndarray], confidence: float) -> tuple[np.ndarray, np.ndarray]:
        """The cells of a level with any score over `confidence`, and (N, nc) all their scores."""
        search = self._scores[number]
        stored = outputs[self._parts["scores"][number][0]][0]
        cells = _distinct(search.above(stored, confidence), stored.shape, self._cells_first)
        return cells, search.scores(self._rows(stored, cells))

    def _rows(self, stored: np.ndarray, cells: np.ndarray) -> np.ndarray:
        """(N, C): what an output stores for some cells."""
        return stored[cells] if self._cells_first else stored[:, cells].T


class DecodedReader:
    """All cells decoded in the file: (1, 4 + nc + extra, A), the extra perhaps in an output of its own."""

    def __init__(self, metadata: Mapping[str, Any], tensors: Sequence[Tensor], size: tuple[int, int]) -> None:
        contract = metadata["edgequant"]
        self._task, self._classes, self._choice = metadata["task"], len(metadata["names"]), contract.get("top_k")
        self._keypoints = metadata.get("kpt_shape")
        self._factors = _factors(contract, size)
        names = [output["name"] for output in contract["outputs"]]
        self._extra = next((i for i, name in enumerate(names) if name in {"mask_coefficient", "angle", "kpts"}), None)
        self._position, self._tensors = names.index("detections"), tensors
        self._scores = Scores(tensors[self._position], logits=False)

    def read(self, outputs: list[np.ndarray], confidence: float, agnostic: bool) -> Candidates:
        """See :class:`Reader`."""
        stored, tensor = outputs[self._position][0], self._tensors[self._position]
        scores = stored[4 : 4 + self._classes]
        cells = _distinct(self._scores.above(scores, confidence), scores.shape, cells_first=False)
        chosen, best, classes = choose(self._scores.scores(scores[:, cells].T), confidence, agnostic, self._choice)
        cells = cells[chosen]
        boxes = tensor.values(stored[:4, cells].T) * self._factors
        if self._extra is None:
            extra = tensor.values(stored[4 + self._classes :, cells].T)
        else:
            extra = self._tensors[self._extra].values(outputs[self._extra][0][:, cells].T)
        if self._choice is None and self._task != "obb":
            half = boxes[:, 2:] / 2
            boxes = np.concatenate((boxes[:, :2] - half, boxes[:, :2] + half), 1)
        return _assembled(self._task, boxes, best, classes, extra, self._keypoints, self._factors)


class EndReader:
    """The final detections: (1, N, 6 + extra), box, score, class and the rest in each row."""

    def __init__(self, metadata: Mapping[str, Any], tensors: Sequence[Tensor], size: tuple[int, int]) -> None:
        contract = metadata["edgequant"]
        self._task, self._keypoints = metadata["task"], metadata.get("kpt_shape")
        self._factors = _factors(contract, size)
        self._position = [output["name"] for output in contract["outputs"]].index("detections")
        self._tensor = tensors[self._position]

    def read(self, outputs: list[np.ndarray], confidence: float, agnostic: bool) -> Candidates:
        """See :class:`Reader`; `agnostic` was decided when the file was made."""
        rows = self._tensor.values(outputs[self._position][0])
        rows = rows[rows[:, 4] > np.float32(confidence)]
        boxes, scores, classes, extra = (
            rows[:, :4] * self._factors,
            rows[:, 4],
            rows[:, 5].astype(np.int64),
            rows[:, 6:],
        )
        return _assembled(self._task, boxes, scores, classes, extra, self._keypoints, self._factors)


def choose(
    scores: np.ndarray, confidence: float, agnostic: bool, choice: Mapping[str, Any] | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which cells go on as which class.

    Args:
        scores: (N, nc) float32, of cells with a score over `confidence`.
        confidence: the threshold.
        agnostic: one class for each cell where there is a choice.
        choice: the contract's ``top_k`` if the file is NMS-free: ``count`` and ``agnostic``. Else a cell goes on once,
            as its best class.

    Returns:
        Rows of `scores`, their scores and their classes; of NMS-free files the best first.
    """
    if choice is None:
        classes = scores.argmax(1)
        return np.arange(len(scores)), scores[np.arange(len(scores)), classes], classes
    best = scores.max(1)
    rows = np.argsort(-best, kind="stable")[: choice["count"]]
    if agnostic or choice["agnostic"]:
        return rows, best[rows], scores[rows].argmax(1)
    flat = scores[rows].ravel()
    place = np.argsort(-flat, kind="stable")[: choice["count"]]
    place = place[flat[place] > np.float32(confidence)]
    return rows[place // scores.shape[1]], flat[place], place % scores.shape[1]


def _distinct(positions: np.ndarray, shape: tuple[int, int], cells_first: bool) -> np.ndarray:
    """The cells, in order, of flat positions in a (cells, C) or (C, cells) array."""
    if not cells_first:
        return np.unique(positions % shape[1])
    cells = positions // shape[1]
    return cells[np.flatnonzero(np.diff(cells, prepend=-1))]  # they are sorted


def _factors(contract: Mapping[str, Any], size: tuple[int, int]) -> np.ndarray:
    """(4,) float32: from the file's unit of boxes to pixels of the input."""
    height, width = size if contract["boxes"] == "normalised" else (1, 1)
    return np.array([width, height, width, height], np.float32)


def _assembled(
    task: str,
    boxes: np.ndarray,
    scores: np.ndarray,
    classes: np.ndarray,
    extra: np.ndarray,
    keypoints: Sequence[int] | None,
    factors: np.ndarray,
) -> Candidates:
    """Candidates, with what the task adds at its place."""
    if task == "obb":
        return Candidates(np.concatenate((boxes, extra), 1), scores, classes, extra[:, :0])
    if task == "pose":
        extra = extra.reshape(-1, *keypoints).copy()
        extra[..., :2] *= factors[:2]
    return Candidates(boxes, scores, classes, extra)
