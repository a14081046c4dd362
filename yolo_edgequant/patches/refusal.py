"""What is left where Ultralytics is not one that the patches were tested with: our options end in one line."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from typing import Any

from ..errors import UnsupportedVersionError
from ..options import NAMES, current


def model_export(original: Callable[..., Any], self: Any, **kwargs: Any) -> Any:
    """``Model.export``, which heeds none of our options here.

    Raises:
        UnsupportedVersionError: one was given.
    """
    given = {name: kwargs[name] for name in sorted(NAMES & kwargs.keys())} | current().given()
    if given:
        raise UnsupportedVersionError(
            f"{', '.join(f'{name}={value!r}' for name, value in given.items())} needs yolo_edgequant's patches, which "
            f"are not in force: ultralytics {metadata.version('ultralytics')} is not a version that they were tested "
            "with; install one that is, or set YOLO_EDGEQUANT_FORCE=1 to try this one"
        )
    return original(self, **kwargs)
