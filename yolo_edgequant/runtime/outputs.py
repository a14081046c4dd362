"""From a file's outputs to candidates, by the contract in its metadata (docs/metadata.md)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..contract import Contract, TopK
from ..decoding import in_numpy
from ..errors import ContractError
from .interpreter import Tensor
from .nms import nms, rotated_nms


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

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, which: np.ndarray | slice) -> Candidates:
        """Those that an index, a mask or a slice names."""
        return Candidates(self.boxes[which], self.scores[which], self.classes[which], self.extra[which])


class Reader(ABC):
    """Reads the outputs of one kind of file.

    Args:
        contract: of the file.
        tensors: its outputs.
        size: (height, width) of its input in pixels.

    Attributes:
        multi_label: see :func:`choose`.

    Raises:
        ContractError: the outputs are not those that the contract speaks of.
    """

    multi_label = False

    def __init__(self, contract: Contract, tensors: Sequence[Tensor], size: tuple[int, int]) -> None:
        if len(tensors) != len(contract.outputs):
            raise ContractError(f"the file has {len(tensors)} outputs and its metadata {len(contract.outputs)}")
        self._contract, self._tensors, self._size = contract, tensors, size
        self._positions = {output.title: position for position, output in enumerate(contract.outputs)}

    @abstractmethod
    def candidates(self, outputs: list[np.ndarray], conf: float, agnostic_nms: bool) -> Candidates:
        """The candidates with a score over `conf`; those of files that need no NMS are final, the best first."""

    def detections(
        self,
        outputs: list[np.ndarray],
        conf: float,
        iou: float,
        max_det: int,
        agnostic_nms: bool,
        classes: np.ndarray | None = None,
    ) -> Candidates:
        """The objects in an image, the best first.

        Args:
            outputs: of the file, as stored.
            conf: a detection's score is over this, 0 to 1.
            iou: largest overlap of two detections of a class, 0 to 1; files that need no NMS have no use for it.
            max_det: number of detections at most.
            agnostic_nms: detections of different classes suppress each other, too.
            classes: indices of the classes to look for; None for all.
        """
        found = self.candidates(outputs, conf, agnostic_nms)
        if classes is not None:
            found = found[np.isin(found.classes, classes)]
        if self._contract.is_final:
            return found[:max_det]
        suppress = rotated_nms if self._contract.task == "obb" else nms
        return found[suppress(found.boxes, found.scores, found.classes, iou, max_det, agnostic_nms)]

    def prototypes(self, outputs: Sequence[np.ndarray]) -> np.ndarray:
        """(C, h, w) float32: the maps that mask coefficients weigh."""
        position = self._positions["prototypes"]
        values = self._tensors[position].values(outputs[position])[0]
        return values.transpose(2, 0, 1) if self._contract.channels_last else values

    def _expect(self, title: str, *shape: int | None) -> Tensor:
        """The tensor of an output, whose shape after the batch must be this one; None for any length."""
        tensor = self._tensors[self._positions[title]]
        fits = len(tensor.shape) == len(shape) + 1 and all(
            wanted in (None, length) for wanted, length in zip(shape, tensor.shape[1:], strict=True)
        )
        if not fits:
            expected = ", ".join("any" if length is None else str(length) for length in shape)
            raise ContractError(f"output '{title}' has shape {tensor.shape} where the metadata means (1, {expected})")
        return tensor

    def _expect_prototypes(self, channels: int) -> None:
        """Check that prototypes, where there are any, are as many as the `channels` that weigh them."""
        if "prototypes" in self._positions:
            last = self._contract.channels_last
            self._expect("prototypes", *((None, None, channels) if last else (channels, None, None)))


def reader(contract: Contract, tensors: Sequence[Tensor], size: tuple[int, int]) -> Reader:
    """The reader for a file.

    Args:
        contract: of the file, which is of a task with boxes.
        tensors: its outputs.
        size: (height, width) of its input.

    Raises:
        ContractError: the outputs are not those that the contract speaks of.
    """
    kind = DecodedReader if contract.raw is None else RawReader
    if contract.is_final and contract.top_k is None:
        kind = FinalReader
    return kind(contract, tensors, size)


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
        return in_numpy.sigmoid(values) if self._logits else values

    def above(self, stored: np.ndarray, conf: float) -> np.ndarray:
        """Flat positions, in order, of the scores over `conf`."""
        flat = stored.ravel()
        if self._table is not None:
            first = int(np.searchsorted(self._table, np.float32(conf), side="right"))
            lowest = np.iinfo(stored.dtype).min
            return np.flatnonzero(flat >= lowest + first) if first < 256 else np.empty(0, np.int64)
        if not self._logits:
            return np.flatnonzero(flat > np.float32(conf))
        share = np.clip(conf, 1e-12, 1 - 1e-12)
        nearly = np.flatnonzero(flat > np.float32(np.log(share / (1 - share)) - 1e-3))
        return nearly[self._score(flat[nearly]) > np.float32(conf)]  # the exact test, of the few

    def scores(self, stored: np.ndarray) -> np.ndarray:
        """Stored numbers as float32 scores."""
        if self._table is None:
            return self._score(stored)
        return self._table[stored.astype(np.intp) - np.iinfo(stored.dtype).min]


class RawReader(Reader):
    """Outputs of the detection convolutions: only the candidates are decoded."""

    def __init__(self, contract: Contract, tensors: Sequence[Tensor], size: tuple[int, int]) -> None:
        super().__init__(contract, tensors, size)
        self._raw, self._choice = contract.raw, contract.top_k
        grids = {stride: (size[0] // stride, size[1] // stride) for stride in contract.strides}
        counts = [rows * columns for rows, columns in grids.values()]
        places: dict[int | None, tuple[int, ...]] = {None: (sum(counts),)}
        if self._raw.arrangement != "merged":
            is_map = self._raw.arrangement == "grid"
            places = {s: grids[s] if is_map else (count,) for s, count in zip(grids, counts, strict=True)}
        self._starts = np.cumsum([0, *(counts[:-1] if len(places) > 1 else [])])
        channels = {"boxes": 4 * self._raw.reg_max, "scores": len(contract.names), "angle": 1}
        if contract.kpt_shape is not None:
            channels |= {"kpts": 2 * contract.kpt_shape[0], "visibility": contract.kpt_shape[0]}
        self._parts: dict[str, list[tuple[int, Tensor]]] = {}
        for position, output in enumerate(contract.outputs):
            if output.name == "prototypes":
                continue
            cells, length = places[output.stride], channels.get(output.name)
            tensor = self._expect(output.title, *((*cells, length) if self._raw.cells_first else (length, *cells)))
            self._parts.setdefault(output.name, []).append((position, tensor))
        self._scores = [Scores(tensor, logits=True) for _, tensor in self._parts["scores"]]
        if "mask_coefficient" in self._parts:
            self._expect_prototypes(self._parts["mask_coefficient"][0][1].shape[-1 if self._raw.cells_first else 1])

    def candidates(self, outputs: list[np.ndarray], conf: float, agnostic_nms: bool) -> Candidates:
        """See :class:`Reader`."""
        levels = [self._level(number, outputs, conf) for number in range(len(self._scores))]
        index = [cells for cells, _ in levels]
        scores = np.concatenate([scores for _, scores in levels])
        rows, scores, classes = choose(scores, conf, agnostic_nms, self._choice, self.multi_label)

        def part(name: str) -> np.ndarray:
            """(N, C) float32 values of the chosen cells."""
            values = [
                tensor.values(self._rows(self._stored(outputs, position), cells))
                for (position, tensor), cells in zip(self._parts[name], index, strict=True)
            ]
            return np.concatenate(values)[rows]

        everywhere = np.concatenate([cells + start for cells, start in zip(index, self._starts, strict=True)])[rows]
        grid = in_numpy.cells(everywhere, self._contract.strides, self._size)
        distances = in_numpy.distances(part("boxes"), self._raw.reg_max)
        extra = np.empty((len(scores), 0), np.float32)
        if "angle" in self._parts:
            angle = part("angle")
            boxes = np.concatenate((in_numpy.rotated_boxes(distances, angle, *grid), angle), 1)
        else:
            boxes = in_numpy.boxes(distances, *grid)
        if "mask_coefficient" in self._parts:
            extra = part("mask_coefficient")
        if "kpts" in self._parts:
            shape = self._contract.kpt_shape
            points = part("kpts").reshape(-1, shape[0], 2)
            if "visibility" in self._parts:
                points = np.concatenate((points, part("visibility")[:, :, None]), 2)
            extra = in_numpy.keypoints(points, shape, *self._raw.keypoint, *grid)
        return Candidates(boxes, scores, classes, extra)

    def _level(self, number: int, outputs: list[np.ndarray], conf: float) -> tuple[np.ndarray, np.ndarray]:
        """The cells of a level with any score over `conf`, and (N, nc) all their scores."""
        search = self._scores[number]
        stored = self._stored(outputs, self._parts["scores"][number][0])
        cells = _distinct(search.above(stored, conf), stored.shape, self._raw.cells_first)
        return cells, search.scores(self._rows(stored, cells))

    def _stored(self, outputs: list[np.ndarray], position: int) -> np.ndarray:
        """(cells, C), or (C, cells): what an output stores, its map unrolled if it is one."""
        values = outputs[position][0]
        if values.ndim == 2:
            return values
        return values.reshape(-1, values.shape[2]) if self._raw.cells_first else values.reshape(values.shape[0], -1)

    def _rows(self, stored: np.ndarray, cells: np.ndarray) -> np.ndarray:
        """(N, C): what an output stores for some cells."""
        return stored[cells] if self._raw.cells_first else stored[:, cells].T


class DecodedReader(Reader):
    """All cells decoded in the file: (1, 4 + nc + extra, A), the extra perhaps in an output of its own."""

    def __init__(self, contract: Contract, tensors: Sequence[Tensor], size: tuple[int, int]) -> None:
        super().__init__(contract, tensors, size)
        self._classes, self._choice = len(contract.names), contract.top_k
        self._factors = _factors(contract, size)
        names = [output.name for output in contract.outputs]
        self._extra = next((i for i, name in enumerate(names) if name in {"mask_coefficient", "angle", "kpts"}), None)
        self._position = names.index("detections")
        keypoints = None if contract.kpt_shape is None else contract.kpt_shape[0] * contract.kpt_shape[1]
        extra = {"detect": 0, "segment": None, "pose": keypoints, "obb": 1}[contract.task]
        together = self._extra is None
        length = None if extra is None and together else 4 + self._classes + (extra if together else 0)
        self._tensor = self._expect("detections", length, None)
        if self._tensor.shape[1] < 4 + self._classes:
            raise ContractError(f"output 'detections' has {self._tensor.shape[1]} channels for {self._classes} classes")
        if not together:
            self._expect(names[self._extra], extra, self._tensor.shape[2])
        self._expect_prototypes(
            self._tensor.shape[1] - 4 - self._classes if together else tensors[self._extra].shape[1]
        )
        if contract.unturned:
            count = sum((size[0] // stride) * (size[1] // stride) for stride in contract.strides)
            self._expect("detections", length, count)
        self._scores = Scores(self._tensor, logits=False)

    def candidates(self, outputs: list[np.ndarray], conf: float, agnostic_nms: bool) -> Candidates:
        """See :class:`Reader`."""
        stored = outputs[self._position][0]
        scores = stored[4 : 4 + self._classes]
        cells = _distinct(self._scores.above(scores, conf), scores.shape, cells_first=False)
        rows, best, classes = choose(
            self._scores.scores(scores[:, cells].T), conf, agnostic_nms, self._choice, self.multi_label
        )
        cells = cells[rows]
        boxes = self._tensor.values(stored[:4, cells].T) * self._factors
        if self._extra is None:
            extra = self._tensor.values(stored[4 + self._classes :, cells].T)
        else:
            extra = self._tensors[self._extra].values(outputs[self._extra][0][:, cells].T)
        if self._contract.unturned:
            boxes = in_numpy.turned(boxes, extra, in_numpy.cells(cells, self._contract.strides, self._size)[0])
        if self._choice is None and self._contract.task != "obb":
            half = boxes[:, 2:] / 2
            boxes = np.concatenate((boxes[:, :2] - half, boxes[:, :2] + half), 1)
        return _assembled(self._contract, boxes, best, classes, extra, self._factors)


class FinalReader(Reader):
    """The final detections: (1, N, 6 + extra), box, score, class and the rest in each row."""

    def __init__(self, contract: Contract, tensors: Sequence[Tensor], size: tuple[int, int]) -> None:
        super().__init__(contract, tensors, size)
        self._factors = _factors(contract, size)
        self._position = self._positions["detections"]
        keypoints = None if contract.kpt_shape is None else contract.kpt_shape[0] * contract.kpt_shape[1]
        extra = {"detect": 0, "segment": None, "pose": keypoints, "obb": 1}[contract.task]
        self._tensor = self._expect("detections", None, None if extra is None else 6 + extra)
        if self._tensor.shape[2] < 6:
            raise ContractError(f"output 'detections' has rows of {self._tensor.shape[2]} values, not 6 or more")
        self._expect_prototypes(self._tensor.shape[2] - 6)

    def candidates(self, outputs: list[np.ndarray], conf: float, agnostic_nms: bool) -> Candidates:
        """See :class:`Reader`; `agnostic_nms` was decided when the file was made.

        Raises:
            ContractError: the file found a class that its metadata does not name.
        """
        rows = self._tensor.values(outputs[self._position][0])
        rows = rows[rows[:, 4] > np.float32(conf)]
        boxes, scores, classes = rows[:, :4] * self._factors, rows[:, 4], rows[:, 5].astype(np.int64)
        if unknown := sorted(set(classes.tolist()) - self._contract.names.keys()):
            raise ContractError(
                f"the file found class {unknown[0]}, and its metadata names {len(self._contract.names)}"
            )
        return _assembled(self._contract, boxes, scores, classes, rows[:, 6:], self._factors)


def choose(
    scores: np.ndarray, conf: float, agnostic_nms: bool, choice: TopK | None, multi_label: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which cells go on as which class.

    Args:
        scores: (N, nc) float32, of cells with a score over `conf`.
        conf: the threshold.
        agnostic_nms: one class for each cell where there is a choice.
        choice: the contract's, if the file is NMS-free. Else a cell goes on once, as its best class, or:
        multi_label: as each class with a score over the threshold, as Ultralytics has it in validation.

    Returns:
        Rows of `scores`, their scores and their classes; of NMS-free files the best first.
    """
    if choice is None and multi_label:
        rows, classes = np.nonzero(scores > np.float32(conf))
        return rows, scores[rows, classes], classes
    if choice is None:
        classes = scores.argmax(1)
        return np.arange(len(scores)), scores[np.arange(len(scores)), classes], classes
    best = scores.max(1)
    rows = np.argsort(-best, kind="stable")[: choice.count]
    if agnostic_nms or choice.agnostic:
        return rows, best[rows], scores[rows].argmax(1)
    flat = scores[rows].ravel()
    place = np.argsort(-flat, kind="stable")[: choice.count]
    place = place[flat[place] > np.float32(conf)]
    return rows[place // scores.shape[1]], flat[place], place % scores.shape[1]


def _distinct(positions: np.ndarray, shape: tuple[int, int], cells_first: bool) -> np.ndarray:
    """The cells, in order, of flat positions in a (cells, C) or (C, cells) array."""
    if not cells_first:
        return np.unique(positions % shape[1])
    cells = positions // shape[1]
    return cells[np.flatnonzero(np.diff(cells, prepend=-1))]  # they are sorted


def _factors(contract: Contract, size: tuple[int, int]) -> np.ndarray:
    """(4,) float32: from the file's unit of boxes to pixels of the input."""
    height, width = size if contract.normalised else (1, 1)
    return np.array([width, height, width, height], np.float32)


def _assembled(
    contract: Contract,
    boxes: np.ndarray,
    scores: np.ndarray,
    classes: np.ndarray,
    extra: np.ndarray,
    factors: np.ndarray,
) -> Candidates:
    """Candidates, with what the task adds at its place."""
    if contract.task == "obb":
        return Candidates(np.concatenate((boxes, extra), 1), scores, classes, extra[:, :0])
    if contract.task == "pose":
        extra = extra.reshape(-1, *contract.kpt_shape).copy()
        extra[..., :2] *= factors[:2]
    return Candidates(boxes, scores, classes, extra)
