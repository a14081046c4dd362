"""Writing results so that a reader finds a whole file or none."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import OutputError

_REFUSALS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EFBIG,
}


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write a file or folder to; rename it into place when all went well.

    Nothing is left behind if the body raises. An older file, folder or link at `path` is replaced, and kept if that
    fails.

    Raises:
        OutputError: the disk is full, the place cannot be written, or the body wrote nothing.
    """
    try:
        with suppress(FileExistsError):
            path.parent.mkdir(parents=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
            temporary = Path(folder) / path.name
            yield temporary
            if not temporary.exists():
                raise OutputError(f"nothing was written to '{path}'; what was there is kept")
            _replace(path, temporary, Path(folder) / f"{path.name}.old")
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        raise OutputError(
            f"cannot write '{path}': {os.strerror(error.errno)}; free space or choose another place"
        ) from error


def _replace(path: Path, new: Path, aside: Path) -> None:
    """Rename `new` to `path`; what was there goes `aside`, or back if that fails."""
    try:
        with suppress(FileNotFoundError):
            path.rename(aside)
        new.rename(path)
    except BaseException:
        with suppress(FileNotFoundError):
            aside.rename(path)
        raise
