"""What the comparison with the float model means for a file: a note in its contract, or a refusal."""

from __future__ import annotations

from collections.abc import Callable

from ..contract import Verified
from ..errors import VerificationError
from ..log import LOGGER
from .agreement import Agreement


def self_check(agreement: Agreement, worst_tensor: Callable[[], tuple[str, float]]) -> Verified:
    """Log what a comparison with the float model found.

    Args:
        agreement: of the quantized and the float model.
        worst_tensor: finds the tensor where most is lost, and what is left of its signal, 0 to 1.

    Returns:
        What to note in the file's contract.

    Raises:
        VerificationError: the model collapsed.
    """
    if agreement.collapsed:
        tensor, left = worst_tensor()
        raise VerificationError(
            f"the INT8 model agrees with {agreement.detections:.0%} of its objects on {agreement.images} images held "
            f"back from calibration; most is lost in tensor '{tensor}', of whose signal {left:.0%} is left. Try other "
            "ranges= or head=, or more calibration images; verify=False writes the file all the same"
        )
    objects = "no objects"
    if agreement.detections is not None:
        objects = f"{agreement.objects} objects, agreement {agreement.detections:.3f}"
    if agreement.score_change is not None:
        objects += f", their scores {agreement.score_change:+.3f} on average"
    lowest = min(agreement.snr_db.items(), key=lambda item: item[1], default=None)
    noise = "" if lowest is None else f", lowest signal to noise {lowest[1]:.1f} dB ({lowest[0]})"
    LOGGER.info(f"self-check on {agreement.images} images held back: {objects}{noise}")
    return Verified(agreement.images, agreement.objects, agreement.detections, agreement.snr_db)
