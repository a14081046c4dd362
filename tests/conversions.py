"""Fixtures to export small models with, each model converted once for all tests and processes of a run."""

import hashlib
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
