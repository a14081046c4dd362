"""Writing results so that a reader finds a whole file or none."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import OutputError


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write a file or folder to; rename it into place when all went well.

    Nothing is left behind if the body raises. An older file or folder at `path` is replaced.

    Raises:
        OutputError: the disk is full or the place cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            temporary = Path(folder) / path.name
            yield temporary
            if path.is_dir():
                shutil.rmtree(path)
            temporary.replace(path)
    except OSError as error:
        if error.errno is None or isinstance(error, OutputError):
            raise
        raise OutputError(
            f"cannot write '{path}': {os.strerror(error.errno)}; free space or choose another place"
        ) from error
