"""Training a changed model by the standard call."""

import copy

import pytest
from torch import nn
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionTrainer

from yolo_edgequant.demo.train import HERE, WEIGHTS
from yolo_edgequant.errors import OptionError
from yolo_edgequant.patches import training
from yolo_edgequant.training.fake_quantization import FakeQuantization, attach
from yolo_edgequant.training.trainer import ChangedModelTrainer


def passed_on(model, trainer=None, **arguments):
    """What upstream's own Model.train would be given."""
    calls = []
    training.model_train(lambda self, trainer, **rest: calls.append((trainer, rest)), model, trainer, **arguments)
    (call,) = calls
    return call


def test_an_unchanged_model_is_left_to_upstream():
    assert passed_on(YOLO(WEIGHTS), epochs=3) == (None, {"epochs": 3})


@pytest.mark.parametrize("device", ["cpu", "0,1"])
def test_an_activation_is_for_a_subclass_of_the_tasks_trainer_on_any_number_of_devices(device):
    trainer, rest = passed_on(YOLO(WEIGHTS), activation="relu6", device=device)
    assert rest == {"device": device}
    assert issubclass(trainer, ChangedModelTrainer)
    assert issubclass(trainer, DetectionTrainer)
    assert trainer.activation == "relu6"


def test_the_users_own_trainer_stays_below():
    class Own(DetectionTrainer):
        pass

    trainer, _ = passed_on(YOLO(WEIGHTS), Own, activation="relu6")
    assert issubclass(trainer, Own)


@pytest.mark.parametrize("distilled", [False, True])
def test_a_model_with_a_fake_quantization_is_trained_as_it_is(distilled):
    model = YOLO(WEIGHTS)
    attach(model.model, FakeQuantization({}, (), {0}, "tensor", "tflite"))
    if distilled:  # as it is after an interrupted training
        model.model.student_model = copy.deepcopy(model.model)
        del model.model._modules["fake_quantization"]
    trainer, _ = passed_on(model)
    assert issubclass(trainer, ChangedModelTrainer)
    assert trainer.activation is None


def test_an_unknown_activation_is_refused_before_any_work():
    with pytest.raises(OptionError, match="activation='relu7' is not one of"):
        YOLO(WEIGHTS).train(activation="relu7", data="nowhere.yaml")


@pytest.mark.export
@pytest.mark.parametrize("start", ["checkpoint", "yaml"])
def test_train_takes_an_activation(shapes_model, shapes_data, tmp_path, start):
    model = YOLO(shapes_model if start == "checkpoint" else HERE / "shapes.yaml")
    arguments = {"data": shapes_data, "imgsz": 64, "epochs": 1, "batch": 16, "plots": False, "amp": False}
    with pytest.raises(SyntaxError, match="activaton"):
        model.train(activaton="relu6", **arguments)
    model.train(activation="hardswish", save_dir=str(tmp_path / "run"), **arguments)
    for trained in (model.model, YOLO(tmp_path / "run/weights/last.pt").model):
        kinds = {type(m) for m in trained.modules()}
        assert nn.Hardswish in kinds
        assert nn.SiLU not in kinds
