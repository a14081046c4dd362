"""Exports of the embedded detector, each made once and read by many tests, and what Ultralytics logs."""

import hashlib
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
from filelock import FileLock


@pytest.fixture(scope="session")
def converted_once(tmp_path_factory, worker_id):
    """A context in which a model that was converted before, by whatever test and process, is not converted again.

    That takes six of an export's seven seconds.
    """
    from yolo_edgequant.patches import litert
    from yolo_edgequant.pipeline import tflite

    folder = tmp_path_factory.getbasetemp() if worker_id == "master" else tmp_path_factory.getbasetemp().parent
    convert, to_tflite = tflite.convert, tflite.to_tflite

    def convert_once(model, image, contract):
        # what is blank is decided after the conversion, all else of the contract is how the head computes
        arithmetic = replace(contract, granularity="", ranges="", corrections="", io="")
        key = hashlib.sha256(repr((tuple(image.shape), arithmetic)).encode())
        for name, values in model.state_dict().items():
            key.update(name.encode() + values.numpy().tobytes())
        file = folder / f"{key.hexdigest()}.tflite"

        def read(*arguments):
            with FileLock(file.with_suffix(".lock")):
                if not file.exists():
                    file.write_bytes(to_tflite(*arguments))
                return file.read_bytes()

        with mock.patch.object(tflite, "to_tflite", read):
            return convert(model, image, contract)

    return lambda: mock.patch.object(litert, "convert", convert_once)


@pytest.fixture(scope="session")
def export(converted_once):
    """Exports a checkpoint on the drawn data, beside it, converting each model once."""
    from ultralytics import YOLO

    def run(checkpoint, data, **arguments):
        with converted_once():
            settings = {"quantize": 8, "data": data, "split": "train", "imgsz": 160, **arguments}
            return Path(YOLO(checkpoint).export(**settings))

    return run


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
