"""The patches that go upstream, as files: they import nothing of this library."""

from __future__ import annotations

import shutil
from pathlib import Path

from .errors import MissingToolError, OptionError

#: The series for Ultralytics, and the one for ai-edge-quantizer.
SERIES = "ultralytics"
QUANTIZER_SERIES = "ai-edge-quantizer"


def folder_of(series: str) -> Path:
    """Where a series lies: in the installed package, or in the repository.

    Raises:
        MissingToolError: this installation has none.
    """
    package = Path(__file__).parent
    for place in (package / "contrib", package.parent / "contrib"):
        if (place / series).is_dir():
            return place / series
    raise MissingToolError(f"no patches for {series} in '{package / 'contrib'}': install yolo-edgequant again")


def write(folder: Path) -> list[Path]:
    """Copy the series into folders of a folder, which is made if it is not there; the files, in order.

    Raises:
        OptionError: the folder is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise OptionError(f"'{folder}' is a file: name a folder for the patches")
    written = []
    for series in (SERIES, QUANTIZER_SERIES):
        (folder / series).mkdir(parents=True, exist_ok=True)
        for patch in sorted(folder_of(series).glob("*.patch")):
            written.append(Path(shutil.copy(patch, folder / series)))
    return written
