import csv
import io
import json
import math
import os
from pathlib import Path
from types import SimpleNamespace

import cv2
import pytest
import torch
from rich.console import Console
from torch import nn
from ultralytics import YOLO

import yolo_edgequant
from yolo_edgequant.demo.dataset import data_set
from yolo_edgequant.errors import OptionError, TrainingError, UnsupportedModelError
from yolo_edgequant.training import finetune as module
from yolo_edgequant.training.activations import swap_activation
from yolo_edgequant.training.curve import draw
from yolo_edgequant.finetuning import FineTuned, finetune

SHORT = {"epochs": 3, "batch": 8, "amp": False}


def quiet():
    return Console(file=io.StringIO(), width=120)


def test_the_package_offers_it():
    assert yolo_edgequant.finetune is finetune
    assert yolo_edgequant.swap_activation is swap_activation


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"activation": "relu7"}, OptionError, "activation='relu7' is not one of"),
        ({"activation": None}, OptionError, "nothing to change"),
        ({"target": "onnx"}, OptionError, "target='onnx' is not one of 'tflite', 'litert', 'openvino'"),
        ({"granularity": "tensor"}, OptionError, "granularity='tensor' needs target="),
        ({"target": "openvino", "granularity": "tensor"}, OptionError, "granularity='tensor' is not one of 'channel'"),
        ({"model": "nowhere.pt"}, OptionError, "'nowhere.pt' not found"),
        ({"teacher": "nowhere.pt"}, OptionError, "'nowhere.pt' not found"),
        ({"model": "yolov8n.yaml"}, UnsupportedModelError, "has no trained weights"),
        ({"model": "yolov8n-cls.yaml"}, UnsupportedModelError, "this is a classify model"),
        ({"model": "fused"}, UnsupportedModelError, "fused into its convolutions"),
        ({"resume": True}, OptionError, "nothing to resume: there is no '.*last.pt'"),
        ({"epochz": 3}, OptionError, "epochz= is neither an argument of finetune nor"),
        ({"quantize": 8}, OptionError, "quantize= is not for finetune: use target="),
        ({"distill_model": "big.pt"}, OptionError, "use teacher="),
        ({"data": "nowhere.yaml"}, OptionError, "data='nowhere.yaml': .*nowhere.yaml"),
        ({"data": "five.yaml"}, OptionError, "has 5 classes and the model 4"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(
    shapes_model, shapes_data, tmp_path, monkeypatch, change, error, match
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "five.yaml").write_text(shapes_data.read_text() + "  4: heart\n")
    model = change.get("model", shapes_model)
    if model == "fused":
        model = YOLO(shapes_model)
        model.fuse(verbose=False)
    elif str(model).endswith(".yaml"):
        model = YOLO(model)
        if model.task == "classify":
            model.ckpt = {"model": model.model}
    with pytest.raises(error, match=match) as raised:
        finetune(**{"data": shapes_data, "activation": "relu6", "out": tmp_path / "run", **change, "model": model})
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.glob("run/*"))


def trainer(loss=1.0, mean=1.0, epoch=0, last=Path("nowhere")):
    return SimpleNamespace(
        loss=torch.tensor(loss),
        tloss={"box_loss": torch.tensor(mean / 2), "dis_loss": torch.tensor([mean / 2])},
        epoch=epoch,
        epochs=2,
        start_epoch=0,
        last=last,
        args=SimpleNamespace(lr0=0.01),
        device=torch.device("cpu"),
        train_loader=[0, 1],
    )


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_a_number_ends_training_at_once(tmp_path, loss):
    watch = module._Watch(quiet())
    watch.start(trainer())
    watch.batch(trainer())
    with pytest.raises(TrainingError, match=rf"epoch 2 \(loss {loss}\); no epoch was finished; .* \(it was 0.01\)"):
        watch.batch(trainer(loss, epoch=1))
    last = tmp_path / "last.pt"
    last.touch()
    with pytest.raises(TrainingError, match=f"the last good checkpoint is '{last}'"):
        watch.batch(trainer(loss, last=last))


def test_a_loss_that_explodes_ends_training():
    watch = module._Watch(quiet())
    for mean in (3.0, 2.0, 4.0):
        watch.epoch(trainer(mean=mean))
    with pytest.raises(TrainingError, match=r"loss 20, 10\.0 times its least"):
        watch.epoch(trainer(mean=20.0))


def test_the_table_has_the_three_accuracies():
    done = FineTuned(Path("best.pt"), "relu6", "tflite", "tensor", 0.8, 0.2, 0.6, 0.76, 10, 61.2, 0)
    console = quiet()
    console.print(done.table())
    text = console.file.getvalue()
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines()]
    assert ["recovered", "0.7600", "95.0%"] in lines
    assert ["changed", "0.2000", "25.0%"] in lines
    assert ["prepared", "0.6000", "75.0%"] in lines
    assert "relu6, tflite, tensor after 10 epochs, 61 s" in " ".join(text.split())


def test_the_curve_shows_losses_and_accuracy(tmp_path):
    names = ("epoch", "time", "train/box_loss", "train/dis_loss", "metrics/mAP50(B)", "metrics/mAP50-95(B)")

    def picture(final, teacher):
        with (tmp_path / "results.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerows([names, (1, 3.5, 2.0, 1.0, 0.5, 0.3), (2, 7.0, 1.5, 0.8, 0.7, final)])
        draw(tmp_path / "results.csv", tmp_path / "curve.png", teacher, 0.2)
        return cv2.imread(str(tmp_path / "curve.png"))

    image = picture(0.6, 0.8)
    assert image.shape == (400, 1000, 3)
    left, right = slice(0, 500), slice(500, 1000)
    for other in (picture(0.5, 0.8), picture(0.6, 0.7)):
        assert (image[:, left] == other[:, left]).all()
        assert (image[:, right] != other[:, right]).any()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return data_set(tmp_path_factory.mktemp("data"), 32, 24, 160, seed=5)


@pytest.fixture(scope="module")
def model():
    from yolo_edgequant.demo.train import WEIGHTS

    return WEIGHTS


class Interrupted(Exception):
    pass


def interrupt(run):
    if run.epoch == 1:
        raise Interrupted


@pytest.fixture(scope="module")
def runs(model, data, tmp_path_factory):
    """Two runs of the same seed, the second interrupted in its second epoch and resumed."""
    folder = tmp_path_factory.mktemp("runs")
    console = quiet()
    whole = finetune(model, data, "relu6", out=folder / "whole", console=console, **SHORT)
    student = YOLO(model)
    student.add_callback("on_train_epoch_end", interrupt)
    with pytest.raises(Interrupted):
        finetune(student, data, "relu6", teacher=model, out=folder / "parts", console=quiet(), **SHORT)
    state = torch.load(folder / "parts/weights/last.pt", weights_only=False)
    return folder, whole, console.file.getvalue(), state


@pytest.mark.slow
def test_a_run_leaves_what_it_promises(runs):
    folder, done, shown, _ = runs
    out = folder / "whole"
    assert done.checkpoint == out / "weights/best.pt"
    written = json.loads((out / "finetune.json").read_text())
    assert written == json.loads(json.dumps(vars(done), default=str))
    assert written["epochs"] == 3
    assert 0 < done.changed < done.teacher
    assert cv2.imread(str(out / "curve.png")) is not None
    assert "epoch 3: mAP50-95" in shown
    assert "12/12" in shown
    assert "Epoch" not in shown
    loaded = YOLO(done.checkpoint)
    kinds = {type(m) for m in loaded.model.modules()}
    assert nn.ReLU6 in kinds
    assert nn.SiLU not in kinds


@pytest.mark.slow
def test_a_run_is_repeated_by_its_seed(runs):
    folder, _, _, state = runs
    first = next(csv.DictReader((folder / "whole/results.csv").open()))["train/dis_loss"]
    again = [row["train/dis_loss"] for row in csv.DictReader((folder / "parts/results.csv").open())]
    assert again == [first]
    assert state["epoch"] == 0


@pytest.mark.slow
def test_an_interrupted_run_is_resumed_with_its_activations_and_teacher(runs, model, data):
    folder, whole, _, _ = runs
    with pytest.raises(OptionError, match="activation='relu' but the run to resume was started with 'relu6'"):
        finetune(model, data, activation="relu", out=folder / "parts", resume=True, console=quiet())
    done = finetune(model, data, out=folder / "parts", resume=True, console=quiet())
    rows = list(csv.DictReader((folder / "parts/results.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert float(rows[-1]["train/dis_loss"]) > 0
    assert done.epochs == 3
    assert nn.SiLU not in {type(m) for m in YOLO(done.checkpoint).model.modules()}
    assert done.teacher == whole.teacher
    with pytest.raises(OptionError, match="is finished"):
        finetune(model, data, out=folder / "parts", resume=True)


@pytest.mark.slow
def test_divergence_keeps_the_last_good_checkpoint(model, data, tmp_path):
    student = YOLO(model)

    def poison(run):
        if run.epoch == 1:
            next(run.model.student_model.parameters()).data.fill_(math.nan)

    student.add_callback("on_train_batch_start", poison)
    with pytest.raises(TrainingError, match=r"diverged in epoch 2 \(loss nan\); the last good checkpoint is"):
        finetune(student, data, "relu6", teacher=model, out=tmp_path, console=quiet(), **SHORT)
    kept = torch.load(tmp_path / "weights/last.pt", weights_only=False)
    assert kept["epoch"] == 0
    assert all(v.isfinite().all() for v in kept["ema"].state_dict().values() if v.is_floating_point())


@pytest.mark.slow
@pytest.mark.parametrize("start", ["checkpoint", "yaml"])
def test_train_takes_an_activation(shapes_model, data, tmp_path, start):
    model = YOLO(shapes_model if start == "checkpoint" else Path(module.__file__).parents[1] / "demo/shapes.yaml")
    arguments = {"data": data, "imgsz": 64, "epochs": 1, "batch": 16, "plots": False, "amp": False}
    with pytest.raises(OptionError, match="activation='relu7'"):
        model.train(activation="relu7", **arguments)
    with pytest.raises(OptionError, match="not possible with several devices"):
        model.train(activation="relu6", device="0,1", **arguments)
    with pytest.raises(SyntaxError, match="activaton"):
        model.train(activaton="relu6", **arguments)
    model.train(activation="hardswish", save_dir=str(tmp_path / "run"), **arguments)
    for trained in (model.model, YOLO(tmp_path / "run/weights/last.pt").model):
        kinds = {type(m) for m in trained.modules()}
        assert nn.Hardswish in kinds
        assert nn.SiLU not in kinds


@pytest.mark.slow
@pytest.mark.parametrize(
    ("weights", "task"),
    [("shapes-seg", "segment"), ("shapes-pose", "pose"), ("shapes-obb", "obb"), ("shapes26", "detect")],
)
def test_every_task_and_nms_free_models_are_taught(tmp_path, weights, task):
    data = data_set(tmp_path / "data", 16, 12, 160, seed=5, task=task)
    model = Path(__file__).parents[1] / f"weights/{weights}.pt"
    done = finetune(model, data, "relu6", out=tmp_path / "run", console=quiet(), epochs=1, batch=8, amp=False)
    assert 0 < done.changed < done.teacher
    row = next(csv.DictReader((tmp_path / "run/results.csv").open()))
    assert 0 < float(row["train/dis_loss"]) < math.inf
    assert nn.SiLU not in {type(m) for m in YOLO(done.checkpoint).model.modules()}


def test_training_on_the_cpu_has_all_cores():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        trainer = SimpleNamespace(device=torch.device("cpu"), train_loader=[None], epochs=1, start_epoch=0)
        module._Watch(quiet()).start(trainer)
        assert torch.get_num_threads() == os.cpu_count()
    finally:
        torch.set_num_threads(before)
