"""How far two sets of outputs of one model agree: in the objects they hold, and in signal to noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..contract import Contract
from ..decoding.in_numpy import sigmoid
from ..runtime.interpreter import Run
from ..runtime.nms import overlaps
from ..runtime.outputs import Candidates, reader

_CONFIDENCE = 0.1  # objects under it weigh little, and are many
_IOU = 0.7
_MAX_DET = 300
_LEAST = 0.3
_SURE = 0.5
_ENOUGH = 3


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
    def noise(self) -> float:
        """Noise as a share of the signal's variance, on average over the outputs; 1 less the agreement without any."""
        shares = [10 ** (-snr / 10) for snr in self.snr_db.values()]
        return float(np.mean(shares)) if shares else 1 - (self.detections or 0.0)

    @property
    def collapsed(self) -> bool:
        """True if less than 30 % of the objects are left, where the float model was sure of three or more.

        What an untrained model finds is near any threshold and says nothing; nor does other tasks' noise.
        """
        return self.detections is not None and self.sure >= _ENOUGH and self.detections < _LEAST


def compare(contract: Contract, size: tuple[int, int], reference: Run, quantized: Run) -> Agreement:
    """Compare a quantized model with its float model.

    Args:
        contract: of the file; says how to decode both.
        size: (height, width) of the input.
        reference, quantized: the two models' outputs for the same images.
    """
    snr = _signal_to_noise(contract, reference, quantized)
    if not contract.has_boxes:
        return Agreement(len(quantized.outputs), None, None, snr)
    ours, theirs = (_objects(run, contract, size) for run in (quantized, reference))
    objects = sum(len(image) for image in theirs)
    shared = sum(_shared(one, other) for one, other in zip(theirs, ours, strict=True))
    total = sum(float(image.scores.sum()) for run in (theirs, ours) for image in run)
    sure = sum(int((image.scores > _SURE).sum()) for image in theirs)
    return Agreement(len(quantized.outputs), objects, 2 * shared / total if objects else None, snr, sure)


def _objects(run: Run, contract: Contract, size: tuple[int, int]) -> list[Candidates]:
    """The objects in each image, the best first."""
    read = reader(contract, run.tensors, size)
    return [read.detections(outputs, _CONFIDENCE, _IOU, _MAX_DET, False) for outputs in run.outputs]


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


def _signal_to_noise(contract: Contract, reference: Run, quantized: Run) -> dict[str, float]:
    """10 log10 of variance to mean squared error of each output; logits of scores after the sigmoid."""
    if contract.is_final and contract.top_k is None:
        return {}  # rows of final detections change places
    snr = {}
    for position in range(len(quantized.tensors)):
        name = contract.outputs[position].title if contract.outputs else f"output {position}"
        pairs = [
            [run.tensors[position].values(outputs[position]).astype(np.float64) for outputs in run.outputs]
            for run in (reference, quantized)
        ]
        if contract.raw is not None and name.startswith("scores"):
            pairs = [[sigmoid(values) for values in run] for run in pairs]
            if max(values.max() for values in pairs[0]) < _CONFIDENCE:
                continue  # no object at this level
        signal = float(np.mean([values.var() for values in pairs[0]]))
        noise = float(np.mean([np.square(a - b).mean() for a, b in zip(*pairs, strict=True)]))
        snr[name] = round(10 * float(np.log10(max(signal, 1e-30) / max(noise, 1e-30))), 2)
    return snr
