"""Ultralytics' models and files, for the rest of the package, which imports no Ultralytics."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn
from ultralytics import YOLO, cfg
from ultralytics.cfg import entrypoint
from ultralytics.cfg import smart_value as parse_value
from ultralytics.engine.model import Model
from ultralytics.nn.tasks import BaseModel
from ultralytics.utils import DEFAULT_CFG_DICT, LOGGER, USER_CONFIG_DIR, YAML

__all__ = [
    "YAML",
    "YOLO",
    "Model",
    "command",
    "edgetpu_compiler",
    "has_common_forward",
    "parse_value",
    "quiet",
    "training_arguments",
]


def edgetpu_compiler() -> Path | None:
    """The Edge TPU compiler that Ultralytics keeps in its settings folder once it has fetched it; None before."""
    compiler = USER_CONFIG_DIR / "edgetpu-compiler" / "usr" / "bin" / "edgetpu_compiler_bin" / "edgetpu_compiler"
    return compiler if compiler.is_file() else None


def has_common_forward(model: nn.Module) -> bool:
    """True if a model is run layer by layer, as nearly all are; one with texts or a decoder of its own is not."""
    return type(model).predict is BaseModel.predict


def training_arguments() -> frozenset[str]:
    """The names of the arguments of Ultralytics' training."""
    return frozenset(DEFAULT_CFG_DICT)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Ultralytics' tables and bars; its warnings stay."""
    before: Any = LOGGER.level
    LOGGER.setLevel(logging.WARNING)
    try:
        yield
    finally:
        LOGGER.setLevel(before)


def command(arguments: list[str]) -> None:
    """Ultralytics' shell command ``yolo`` with these arguments, in this process."""
    cfg.ARGV = ["yolo", *arguments]  # where it looks for them, since it was imported
    entrypoint()
