"""How far two sets of outputs of one model agree: in the objects they hold, and in signal to noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..heads.candidates import sigmoid
from ..runtime.interpreter import Tensor
from ..runtime.nms import nms, overlaps, rotated_nms
from ..runtime.outputs import Candidates, Reader, is_final, reader

_TASKS = ("detect", "segment", "pose", "obb")
_CONFIDENCE = 0.1  # objects under it weigh little, and are many
_IOU = 0.7
_MOST = 300
_LEAST = 0.3
_SURE = 0.5
_ENOUGH = 3


@dataclass(frozen=True)
class Run:
    """Outputs of a model for several images.

    Attributes:
        tensors: types of the outputs.
        outputs: for each image, the outputs as stored.
    """

    tensors: list[Tensor]
    outputs: list[list[np.ndarray]]


@dataclass(frozen=True)
class Agreement:
    """What a comparison found.

    Attributes:
        images: that were compared.
        objects: that the float model found in them, with a score over 0.1; None for tasks without boxes.
        detections: 0 to 1, the objects on which both models agree, weighed by scores and overlap; None without objects.
        snr_db: signal to noise of each output, by name.
        sure: how many of the objects have a score over 0.5.
    """

    images: int
    objects: int | None
    detections: float | None
    snr_db: dict[str, float]
    sure: int = 0

    @property
    def quality(self) -> float:
        """What to choose among files by, the higher the better: the objects, or without any the mean of `snr_db`."""
        return self.detections if self.detections is not None else float(np.mean([*self.snr_db.values()] or [0.0]))

    @property
    def collapsed(self) -> bool:
        """True if less than 30 % of the objects are left, where the float model was sure of three or more.

        What an untrained model finds is near any threshold and says nothing; nor does other tasks' noise.
        """
        return self.detections is not None and self.sure >= _ENOUGH and self.detections < _LEAST


def compare(metadata: Mapping[str, Any], size: tuple[int, int], reference: Run, made: Run) -> Agreement:
    """Compare a quantised model with its float model.

    Args:
        metadata: of the file; says how to decode both.
        size: (height, width) of the input.
        reference, made: the float and the quantised model's outputs for the same images.
    """
    snr = _signal_to_noise(metadata, reference, made)
    if metadata["task"] not in _TASKS:
        return Agreement(len(made.outputs), None, None, snr)
    found = [_objects(run, reader(metadata, run.tensors, size), metadata) for run in (reference, made)]
    objects = sum(len(one.scores) for one in found[0])
    shared = sum(_shared(one, other) for one, other in zip(*found, strict=True))
    total = sum(float(one.scores.sum()) for each in found for one in each)
    sure = sum(int((one.scores > _SURE).sum()) for one in found[0])
    return Agreement(len(made.outputs), objects, 2 * shared / total if objects else None, snr, sure)


def _objects(run: Run, read: Reader, metadata: Mapping[str, Any]) -> list[Candidates]:
    """What is found in each image, the best first."""
    found = []
    for outputs in run.outputs:
        seen = read.read(outputs, _CONFIDENCE, False)
        if not is_final(metadata):
            suppress = rotated_nms if metadata["task"] == "obb" else nms
            seen = seen.chosen(suppress(seen.boxes, seen.scores, seen.classes, _IOU, _MOST, False))
        found.append(seen)
    return found


def _shared(one: Candidates, other: Candidates) -> float:
    """Sum over pairs of the same class of the lower score times the overlap, each object in one pair at most."""
    if not len(one.scores) or not len(other.scores):
        return 0.0
    worth = np.nan_to_num(overlaps(one.boxes, other.boxes)) * np.minimum(one.scores[:, None], other.scores)
    worth[one.classes[:, None] != other.classes] = 0
    total = 0.0
    for _ in range(min(worth.shape)):
        row, column = np.unravel_index(worth.argmax(), worth.shape)
        if worth[row, column] <= 0:
            break
        total += float(worth[row, column])
        worth[row], worth[:, column] = 0, 0
    return total


def _signal_to_noise(metadata: Mapping[str, Any], reference: Run, made: Run) -> dict[str, float]:
    """10 log10 of variance to mean squared error of each output; logits of scores after the sigmoid."""
    contract = metadata["edgequant"]
    if is_final(metadata) and "top_k" not in contract:
        return {}  # rows of final detections change places
    names = _names(contract, len(made.tensors))
    snr = {}
    for position, name in enumerate(names):
        pairs = [
            [run.tensors[position].values(outputs[position]).astype(np.float64) for outputs in run.outputs]
            for run in (reference, made)
        ]
        if "raw" in contract and name.startswith("scores"):
            pairs = [[sigmoid(values) for values in run] for run in pairs]
            if max(values.max() for values in pairs[0]) < _CONFIDENCE:
                continue  # no object at this level
        signal = float(np.mean([values.var() for values in pairs[0]]))
        noise = float(np.mean([np.square(a - b).mean() for a, b in zip(*pairs, strict=True)]))
        snr[name] = round(10 * float(np.log10(max(signal, 1e-30) / max(noise, 1e-30))), 2)
    return snr


def _names(contract: Mapping[str, Any], count: int) -> Sequence[str]:
    described = contract.get("raw", contract).get("outputs")
    if described is None:
        return [f"output {position}" for position in range(count)]
    return [f"{o['name']} {o['stride']}" if "stride" in o else o["name"] for o in described]
