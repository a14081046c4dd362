"""How far two sets of outputs of one model agree: in the objects they hold, and in signal to noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..contract import Contract
from ..decoding.in_numpy import sigmoid
from ..runtime.interpreter import Run, Tensor
from ..runtime.nms import overlaps
from ..runtime.outputs import Candidates, reader

_CONFIDENCE = 0.1  # objects under it weigh little, and are many
_IOU = 0.7
_MAX_DET = 300
_SAME = 0.5  # overlap of what counts as one object
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
        score_change: how much higher the quantized model's scores are on average, of objects that both found with an
            overlap over 0.5; None without any.
    """

    images: int
    objects: int | None
    detections: float | None
    snr_db: dict[str, float]
    sure: int = 0
    score_change: float | None = None

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
        reference, quantized: the two models' outputs for the same images, each gone through once.
    """
    readers = [reader(contract, run.tensors, size) for run in (reference, quantized)] if contract.has_boxes else []
    theirs: list[Candidates] = []
    ours: list[Candidates] = []
    signals = []
    for outputs in zip(reference.outputs, quantized.outputs, strict=True):  # of one image at a time
        signals.append(_signals(contract, (reference.tensors, quantized.tensors), outputs))
        if contract.has_boxes:
            for images, read, values in zip((theirs, ours), readers, outputs, strict=True):
                images.append(read.detections(values, _CONFIDENCE, _IOU, _MAX_DET, False))
    snr = _signal_to_noise(signals)
    if not contract.has_boxes:
        return Agreement(len(signals), None, None, snr)
    objects = sum(len(image) for image in theirs)
    pairs = [pair for one, other in zip(theirs, ours, strict=True) for pair in _pairs(one, other)]
    shared = sum(pair.worth for pair in pairs)
    changes = [pair.score_change for pair in pairs if pair.overlap > _SAME]
    total = sum(float(image.scores.sum()) for run in (theirs, ours) for image in run)
    sure = sum(int((image.scores > _SURE).sum()) for image in theirs)
    agreement = 2 * shared / total if objects else None
    return Agreement(len(signals), objects, agreement, snr, sure, float(np.mean(changes)) if changes else None)


@dataclass(frozen=True)
class _Pair:
    """An object in both models: the lower score times the overlap, the overlap, and the second score less the first."""

    worth: float
    overlap: float
    score_change: float


def _pairs(one: Candidates, other: Candidates) -> list[_Pair]:
    """The objects of one image that are in both, of the same class, each in one pair at most, the worthiest first."""
    pairs: list[_Pair] = []
    if not len(one.scores) or not len(other.scores):
        return pairs
    overlap = np.nan_to_num(overlaps(one.boxes, other.boxes))
    worth = overlap * np.minimum(one.scores[:, None], other.scores)
    worth[one.classes[:, None] != other.classes] = 0
    for _ in range(min(worth.shape)):
        row, column = np.unravel_index(worth.argmax(), worth.shape)
        if worth[row, column] <= 0:
            break
        change = float(other.scores[column]) - float(one.scores[row])
        pairs.append(_Pair(float(worth[row, column]), float(overlap[row, column]), change))
        worth[row], worth[:, column] = 0, 0
    return pairs


@dataclass(frozen=True)
class _Signal:
    """An output of both models for one image: the reference's variance, the mean squared error, and if it counts."""

    variance: float
    error: float
    counts: bool


def _signals(
    contract: Contract, tensors: Sequence[Sequence[Tensor]], outputs: Sequence[Sequence[np.ndarray]]
) -> dict[str, _Signal]:
    """Each output by name, logits of scores after the sigmoid.

    Args:
        contract: of the file.
        tensors, outputs: of the reference and of the quantized model, for one image.
    """
    if contract.is_final and contract.top_k is None:
        return {}  # rows of final detections change places
    signals = {}
    for position in range(len(tensors[1])):
        name = contract.outputs[position].title if contract.outputs else f"output {position}"
        one, other = (
            of[position].values(stored[position]).astype(np.float64)
            for of, stored in zip(tensors, outputs, strict=True)
        )
        counts = True
        if contract.raw is not None and name.startswith("scores"):
            one, other = sigmoid(one), sigmoid(other)
            counts = one.max() >= _CONFIDENCE
        variance = one.var()
        one -= other
        signals[name] = _Signal(variance, np.square(one, out=one).mean(), counts)
    return signals


def _signal_to_noise(signals: Sequence[dict[str, _Signal]]) -> dict[str, float]:
    """10 log10 of variance to mean squared error of each output, but of scores where no image has an object."""
    snr = {}
    for name in signals[0] if signals else ():
        images = [image[name] for image in signals]
        if not any(image.counts for image in images):
            continue
        signal = float(np.mean([image.variance for image in images]))
        noise = float(np.mean([image.error for image in images]))
        snr[name] = round(10 * float(np.log10(max(signal, 1e-30) / max(noise, 1e-30))), 2)
    return snr
