import logging

import pytest
from ultralytics import YOLO
from ultralytics.utils import LOGGER, USER_CONFIG_DIR

from yolo_edgequant.demo.train import WEIGHTS
from yolo_edgequant.upstream import models


def test_the_compiler_that_ultralytics_keeps_is_found_once_it_is_there(tmp_path, monkeypatch):
    assert models.USER_CONFIG_DIR == USER_CONFIG_DIR
    monkeypatch.setattr(models, "USER_CONFIG_DIR", tmp_path)
    assert models.edgetpu_compiler() is None
    compiler = tmp_path / "edgetpu-compiler/usr/bin/edgetpu_compiler_bin/edgetpu_compiler"
    compiler.mkdir(parents=True)
    assert models.edgetpu_compiler() is None, "a folder is no program"
    compiler.rmdir()
    compiler.touch()
    assert models.edgetpu_compiler() == compiler


@pytest.mark.parametrize(("name", "common"), [(WEIGHTS, True), ("yolov8n-world.yaml", False)])
def test_models_that_are_run_in_their_own_way(name, common):
    assert models.has_common_forward(YOLO(name).model) == common


def test_arguments_of_training():
    assert {"epochs", "lr0", "distill_model", "quantize"} <= models.training_arguments()
    assert "activation" not in models.training_arguments()


def test_quiet_leaves_warnings_and_ends():
    before = LOGGER.level
    with models.quiet():
        assert LOGGER.getEffectiveLevel() == logging.WARNING
    assert LOGGER.level == before
