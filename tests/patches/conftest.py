"""Exports of the embedded detector, each made once and read by many tests, and what Ultralytics logs."""

import logging
import shutil

import pytest

from tests.conversions import converted_once, export

__all__ = ["converted_once", "export"]


@pytest.fixture(scope="session")
def exported(export, shapes_data, tmp_path_factory):
    """Files of the embedded detector to look at, not to change, each with the checkpoint alone beside it."""
    from yolo_edgequant.demo.train import WEIGHTS

    files = {}

    def run(format, **options):
        key = (format, *sorted(options.items()))
        if key not in files:
            checkpoint = shutil.copy(WEIGHTS, tmp_path_factory.mktemp("exported"))
            files[key] = export(checkpoint, shapes_data, format=format, **options)
        return files[key]

    return run


@pytest.fixture(scope="session")
def score():
    """mAP50-95 of a file or checkpoint on the drawn validation images."""
    from ultralytics import YOLO

    def run(file, data):
        settings = {"imgsz": 160, "batch": 1, "plots": False, "verbose": False, "workers": 0, "rect": False}
        return YOLO(file, task="detect").val(data=data, **settings).box.map

    return run


@pytest.fixture(scope="session")
def fp32(score, shapes_data):
    """The embedded detector's."""
    from yolo_edgequant.demo.train import WEIGHTS

    return score(WEIGHTS, shapes_data)


@pytest.fixture
def logged():
    """The lines that Ultralytics' logger has handed to its handlers."""
    from ultralytics.utils import LOGGER

    lines = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: lines.append(record.getMessage())
    LOGGER.addHandler(handler)
    yield lines
    LOGGER.removeHandler(handler)
