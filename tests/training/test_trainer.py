"""A changed model is trained as it is, in this process and in those of a training on several devices."""

import io
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from torch import nn
from ultralytics import YOLO
from ultralytics.engine import trainer as upstream
from ultralytics.models.yolo.detect import DetectionTrainer

from yolo_edgequant.demo.train import WEIGHTS
from yolo_edgequant.errors import OptionError
from yolo_edgequant.finetuning import TrainingProgress, finetune
from yolo_edgequant.training.activations import swap_activation
from yolo_edgequant.training.fake_quantization import FakeQuantization, attach, quantization_of
from yolo_edgequant.training.tracing import fuse_batch_norm
from yolo_edgequant.training.trainer import ChangedModelTrainer, trainer_for
from yolo_edgequant.upstream.blocks import swapped


@pytest.fixture
def trainer(shapes_data, tmp_path):
    """One that could start."""

    def build(activation=None, **more):
        settings = {
            "model": str(WEIGHTS),
            "data": str(shapes_data),
            "save_dir": str(tmp_path / "run"),
            "device": "cpu",
            "imgsz": 64,
            "epochs": 1,
            "batch": 16,
            "amp": False,
            "plots": False,
        }
        return trainer_for(DetectionTrainer, activation)(overrides=settings | more)

    return build


def activations(model):
    return {type(m) for m in model.modules()} & {nn.SiLU, nn.ReLU6, nn.Hardswish}


def rounding():
    """The embedded detector, computing with a few points of a fake quantization."""
    model = YOLO(WEIGHTS)
    module = fuse_batch_norm(model.model.float())
    attach(module, FakeQuantization({0: (-30.0, 30.0), 2: (-1.0, 20.0)}, (), {0, 3}, "tensor", "tflite"))
    return model


def test_an_activation_is_swapped_into_the_model_to_train(trainer):
    loaded = YOLO(WEIGHTS).model
    model = trainer("hardswish").get_model(cfg=loaded.yaml, weights=loaded, verbose=False)
    assert activations(model) == {nn.Hardswish}
    assert swapped(model) == "hardswish"
    assert activations(loaded) == {nn.SiLU}
    weights = (next(one.parameters()) for one in (model, loaded))
    assert torch.equal(*(values.float() for values in weights))


def test_a_model_that_was_swapped_before_keeps_its_activation(trainer):
    loaded = YOLO(WEIGHTS)
    swap_activation(loaded, "relu6")
    for activation in (None, "relu6"):
        model = trainer(activation).get_model(cfg=loaded.model.yaml, weights=loaded.model, verbose=False)
        assert activations(model) == {nn.ReLU6}


def test_a_fake_quantization_is_kept_and_learns(trainer):
    loaded = rounding().model.requires_grad_(False)
    one = trainer()
    model = one.get_model(cfg=loaded.yaml, weights=loaded, verbose=False)
    assert quantization_of(model).points == quantization_of(loaded).points
    assert model is not loaded
    assert model.args is one.args
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {"model.22.dfl.conv.weight"}


def test_a_run_is_resumed_with_its_own_activation(trainer):
    loaded = YOLO(WEIGHTS)
    swap_activation(loaded, "relu6")
    one = trainer("relu")
    one.resume = True
    with pytest.raises(OptionError, match="activation='relu' but the run to resume was started with relu6"):
        one.get_model(cfg=loaded.model.yaml, weights=loaded.model)


def test_the_subclass_has_upstreams_name():
    assert trainer_for(DetectionTrainer, None).__name__ == "DetectionTrainer"


@pytest.fixture
def processes(monkeypatch):
    """What Ultralytics starts for a training on several devices is run as one process, on the CPU; their number."""
    started = []

    def run(command, check):
        started.append(command[command.index("--nproc_per_node") + 1])
        return subprocess.run([sys.executable, command[-1]], check=check)

    monkeypatch.setattr(upstream, "subprocess", SimpleNamespace(run=run))
    return started


@pytest.mark.export
def test_several_devices_train_the_model_that_this_process_has_changed(trainer, processes, tmp_path):
    """With its fake quantization, its teacher and its progress bar."""
    teacher = tmp_path / "run/teacher.pt"
    student = rounding()
    one = trainer(distill_model=str(teacher), dis=0.0)
    YOLO(WEIGHTS).save(teacher)
    progress = TrainingProgress(Console(file=io.StringIO()))
    one.add_callback("on_train_start", progress.start)
    one.add_callback("on_train_batch_end", progress.batch)
    one.model = one.get_model(weights=student.model)
    one.ddp, one.world_size = True, 2
    one.train()
    assert processes == ["2"]
    assert teacher.is_file(), "upstream empties the folder of a run that is new"
    trained = YOLO(tmp_path / "run/weights/last.pt").model
    points, before = quantization_of(trained), quantization_of(student.model)
    assert (points.points, points.layers, points.target) == (before.points, before.layers, "tflite")
    weights = (model.model[0].conv.weight.float() for model in (trained, student.model))
    assert not torch.equal(*weights), "it was trained"
    assert float((tmp_path / "run/results.csv").read_text().splitlines()[1].split(",")[1]) > 0


@pytest.mark.export
def test_finetune_on_several_devices(shapes_data, processes, tmp_path, monkeypatch):
    real = DetectionTrainer.__init__

    def several(self, *arguments, **more):
        real(self, *arguments, **more)
        self.ddp, self.world_size = True, 2

    monkeypatch.setattr(ChangedModelTrainer, "__init__", several, raising=False)
    console = Console(file=io.StringIO())
    settings = {"imgsz": 64, "epochs": 1, "batch": 16, "amp": False, "device": "cpu"}
    done = finetune(WEIGHTS, shapes_data, "relu6", out=tmp_path / "run", console=console, **settings)
    assert processes == ["2"]
    assert (tmp_path / "run/teacher.pt").is_file()
    assert activations(YOLO(done.checkpoint).model) == {nn.ReLU6}
    assert done.epochs == 1
    assert (tmp_path / "run/finetune.json").is_file()


def test_processes_that_fail_are_told_of(trainer, monkeypatch):
    one = trainer()
    one.model = one.get_model(weights=rounding().model)
    one.ddp, one.world_size = True, 2

    def run(command, check):
        raise subprocess.CalledProcessError(3, command)

    monkeypatch.setattr(upstream, "subprocess", SimpleNamespace(run=run))
    with pytest.raises(subprocess.CalledProcessError):
        one.train()
    assert one.save_dir.is_dir()
