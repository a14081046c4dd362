"""What both families of files can do with a model on its way to 8 bits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from ..contract import Contract
from ..verification.agreement import Agreement

M = TypeVar("M")


class Int8Build(Protocol[M]):
    """A model that can be quantized in several ways, and compared with its float model.

    Attributes:
        contract: of the file to be.
        holdout: images held back from calibration, float32 from 0 to 1, as the model takes them; perhaps none.
        layers: names of the layers that can each be in 8 bits or in float, in execution order.
    """

    contract: Contract
    holdout: Sequence[np.ndarray]
    layers: Sequence[str]

    def quantize(self, in_float: Sequence[str] = ()) -> M:
        """The INT8 model, with some layers in float."""

    def corrected(self, model: M, in_float: Sequence[str] = ()) -> M:
        """A quantized model, from :meth:`quantize` of the same layers, less what shows only once it is there."""

    def noise(self, alone: str) -> float:
        """Noise of the outputs, as a share of their variance, with this layer alone in 8 bits."""

    def compare(self, model: M) -> Agreement:
        """How far a quantized model agrees with the float model on the holdout."""

    def worst_tensor(self, model: M) -> tuple[str, float]:
        """The tensor of a quantized model where most is lost, and what is left of its signal, 0 to 1."""

    def save(self, model: M | None, folder: Path) -> Path:
        """Write a quantized model, or for None the float model, as a file that Ultralytics validates."""
