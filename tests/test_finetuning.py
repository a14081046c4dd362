import csv
import io
import json
import math
import pickle
import subprocess
from pathlib import Path
from types import SimpleNamespace

import cv2
import pytest
import torch
from rich.console import Console
from torch import nn
from ultralytics import YOLO

import yolo_edgequant
from yolo_edgequant import finetuning
from yolo_edgequant.demo.dataset import data_set
from yolo_edgequant.demo.train import WEIGHTS
from yolo_edgequant.errors import DataError, OptionError, TrainingError, UnsupportedModelError
from yolo_edgequant.finetuning import QAT_RECIPE, RECIPE, FineTuned, TrainingProgress, finetune
from yolo_edgequant.processes import usable_threads
from yolo_edgequant.training.activations import swap_activation

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
        ({"data": "nowhere.yaml"}, DataError, "no images: data='nowhere.yaml', split='train and val'"),
        ({"data": "five.yaml"}, DataError, "has 5 classes and the model 4"),
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
    progress = TrainingProgress(quiet())
    progress.start(trainer())
    progress.batch(trainer())
    with pytest.raises(TrainingError, match=rf"epoch 2 \(loss {loss}\); no epoch was finished; .* \(it was 0.01\)"):
        progress.batch(trainer(loss, epoch=1))
    last = tmp_path / "last.pt"
    last.touch()
    with pytest.raises(TrainingError, match=f"the last good checkpoint is '{last}'"):
        progress.batch(trainer(loss, last=last))


def test_a_loss_that_explodes_ends_training():
    progress = TrainingProgress(quiet())
    for mean in (3.0, 2.0, 4.0):
        progress.epoch(trainer(mean=mean))
    with pytest.raises(TrainingError, match=r"loss 20, 10\.0 times its least"):
        progress.epoch(trainer(mean=20.0))


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


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return data_set(tmp_path_factory.mktemp("data"), 32, 24, 160, seed=5)


class Interrupted(Exception):
    pass


def interrupt(run):
    if run.epoch == 1:
        raise Interrupted


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """Two runs of the same seed, the second interrupted in its second epoch; torch had one thread before."""
    folder = tmp_path_factory.mktemp("runs")
    console, threads = quiet(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        whole = finetune(WEIGHTS, data, "relu6", out=folder / "whole", console=console, **SHORT)
        after = [torch.get_num_threads()]
        student = YOLO(WEIGHTS)
        student.add_callback("on_train_epoch_end", interrupt)
        with pytest.raises(Interrupted):
            finetune(student, data, "relu6", teacher=WEIGHTS, out=folder / "parts", console=quiet(), **SHORT)
        after.append(torch.get_num_threads())
    finally:
        torch.set_num_threads(threads)
    state = torch.load(folder / "parts/weights/last.pt", weights_only=False)
    return SimpleNamespace(
        folder=folder, whole=whole, shown=console.file.getvalue(), state=state, student=student, threads=after
    )


@pytest.mark.export
def test_a_run_leaves_what_it_promises(runs):
    done, shown = runs.whole, runs.shown
    out = runs.folder / "whole"
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


@pytest.mark.export
def test_a_run_is_repeated_by_its_seed(runs):
    rows, again = (list(csv.DictReader((runs.folder / f"{n}/results.csv").open())) for n in ("whole", "parts"))
    assert [row["train/dis_loss"] for row in again] == [rows[0]["train/dis_loss"]]
    assert runs.state["epoch"] == 0


@pytest.mark.export
def test_torch_has_its_threads_back_after_a_run_and_after_one_that_failed(runs):
    assert runs.threads == [1, 1]


@pytest.mark.export
def test_an_interrupted_run_is_resumed_with_its_activations_and_teacher_and_nothing_is_prepared_again(
    runs, data, monkeypatch
):
    out = runs.folder / "parts"
    with pytest.raises(OptionError, match="activation='relu' but the run to resume was started with 'relu6'"):
        finetune(WEIGHTS, data, activation="relu", out=out, resume=True, console=quiet())
    started = json.loads((out / "started.json").read_text())
    accuracies, real = [], finetuning._accuracy

    def refuse(*_, **__):
        raise AssertionError("prepared again")

    def accuracy(*arguments):
        accuracies.append(arguments)
        return real(*arguments)

    for owner, name in (
        (finetuning, "_prepared"),
        (finetuning, "_points"),
        (finetuning.rescaling, "scale_below_relu6"),
        (finetuning.rescaling, "recalibrate_batch_norm"),
        (YOLO, "export"),
    ):
        monkeypatch.setattr(owner, name, refuse)
    monkeypatch.setattr(finetuning, "_accuracy", accuracy)
    done = finetune(WEIGHTS, data, out=out, resume=True, console=quiet())
    assert len(accuracies) == 1, "that of the result"
    rows = list(csv.DictReader((out / "results.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert float(rows[-1]["train/dis_loss"]) > 0
    assert done.epochs == 3
    assert nn.SiLU not in {type(m) for m in YOLO(done.checkpoint).model.modules()}
    assert {name: getattr(done, name) for name in started} == started
    whole = runs.whole
    assert (done.teacher, done.changed, done.prepared) == (whole.teacher, whole.changed, whole.prepared)
    with pytest.raises(OptionError, match="is finished"):
        finetune(WEIGHTS, data, out=out, resume=True)


@pytest.mark.export
def test_divergence_keeps_the_last_good_checkpoint(data, tmp_path):
    student = YOLO(WEIGHTS)

    def poison(run):
        if run.epoch == 1:
            next(run.model.student_model.parameters()).data.fill_(math.nan)

    student.add_callback("on_train_batch_start", poison)
    with pytest.raises(TrainingError, match=r"diverged in epoch 2 \(loss nan\); the last good checkpoint is"):
        finetune(student, data, "relu6", teacher=WEIGHTS, out=tmp_path, console=quiet(), **SHORT)
    kept = torch.load(tmp_path / "weights/last.pt", weights_only=False)
    assert kept["epoch"] == 0
    assert all(v.isfinite().all() for v in kept["ema"].state_dict().values() if v.is_floating_point())


@pytest.mark.export
@pytest.mark.parametrize(
    ("weights", "task"),
    [("shapes-seg", "segment"), ("shapes-pose", "pose"), ("shapes-obb", "obb"), ("shapes26", "detect")],
)
def test_every_task_and_nms_free_models_are_taught(tmp_path, weights, task):
    data = data_set(tmp_path / "data", 16, 12, 160, seed=5, task=task)
    model = Path(__file__).parent / f"weights/{weights}.pt"
    done = finetune(model, data, "relu6", out=tmp_path / "run", console=quiet(), epochs=1, batch=8, amp=False)
    assert 0 < done.changed < done.teacher
    row = next(csv.DictReader((tmp_path / "run/results.csv").open()))
    assert 0 < float(row["train/dis_loss"]) < math.inf
    assert nn.SiLU not in {type(m) for m in YOLO(done.checkpoint).model.modules()}


def test_training_on_the_cpu_has_all_cores_that_this_process_may_use(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        TrainingProgress(quiet()).start(trainer())
        assert torch.get_num_threads() == usable_threads()
    finally:
        torch.set_num_threads(before)


def test_the_progress_can_be_sent_to_another_process():
    """As a training on several devices sends it, after it was shown here."""
    progress = TrainingProgress(quiet())
    progress.epoch(trainer(mean=2.0))
    progress.start(trainer())
    progress.stop()
    arrived = pickle.loads(pickle.dumps([progress.start, progress.batch, progress.epoch, progress.stop]))
    assert len({id(method.__self__) for method in arrived}) == 1
    start, batch, epoch, stop = arrived
    start(trainer())
    batch(trainer())
    with pytest.raises(TrainingError, match=r"loss 20, 10\.0 times its least"):
        epoch(trainer(mean=20.0))
    stop()


@pytest.fixture
def beginning(monkeypatch, tmp_path):
    """A run of which only the start is real; the call's arguments for its training."""
    calls = []

    def prepared(student, *_):
        student.train = lambda **settings: calls.append(settings) or end()
        return finetuning._Start("relu6", None, None, 0.8, 0.2, 0.5), student

    def end():
        raise subprocess.CalledProcessError(3, "torchrun")

    monkeypatch.setattr(finetuning, "_prepared", prepared)
    return calls


def test_processes_that_fail_are_one_line_and_the_start_is_kept(beginning, shapes_data, tmp_path):
    with pytest.raises(TrainingError, match=r"several devices ended with exit status 3; .* kept is in") as raised:
        finetune(WEIGHTS, shapes_data, "relu6", out=tmp_path / "run", console=quiet(), device="0,1", epochs=2)
    assert "\n" not in str(raised.value)
    (settings,) = beginning
    assert settings["device"] == "0,1"
    assert settings["activation"] == "relu6"
    assert settings["distill_model"] == str(tmp_path / "run/teacher.pt")
    assert settings["epochs"] == 2
    start = json.loads((tmp_path / "run/started.json").read_text())
    assert (start["activation"], start["teacher"]) == ("relu6", 0.8)


@pytest.mark.parametrize(("change", "recipe"), [({"activation": "relu6"}, RECIPE), ({"target": "tflite"}, QAT_RECIPE)])
def test_the_recipe_is_that_of_what_is_changed(beginning, shapes_data, tmp_path, change, recipe):
    with pytest.raises(TrainingError):
        finetune(WEIGHTS, shapes_data, out=tmp_path / "run", console=quiet(), **change)
    (settings,) = beginning
    assert recipe.items() <= settings.items()


CHANGES = ("activation", "target", "granularity")
GOOD = {
    "activation": "relu6",
    "target": None,
    "granularity": None,
    "teacher": 0.8,
    "changed": 0.2,
    "prepared": 0.5,
}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "\x00",
        "[" * 100_000,
        json.dumps(GOOD | {"teacher": None}),
        json.dumps(GOOD | {"prepared": "0.5"}),
        json.dumps(GOOD | {"activation": 3}),
        json.dumps(GOOD | {"more": 1}),
        json.dumps({name: value for name, value in GOOD.items() if name != "changed"}),
    ],
    ids=["empty", "half", "list", "null", "zero", "deep", "no number", "text", "no text", "more", "less"],
)
def test_a_damaged_start_is_one_error(tmp_path, content):
    file = tmp_path / "started.json"
    file.write_text(content)
    with pytest.raises(OptionError, match=r"nothing to resume: '.*started\.json' cannot be read") as raised:
        finetuning._Start.read(file, None, None, None)
    assert "\n" not in str(raised.value)


def test_a_start_is_read_as_it_was_written(tmp_path):
    start = finetuning._Start(**GOOD)
    start.write(tmp_path / "started.json")
    assert finetuning._Start.read(tmp_path / "started.json", None, None, None) == start
    for name, value in (("activation", "relu"), ("target", "tflite"), ("granularity", "tensor")):
        with pytest.raises(OptionError, match=f"{name}='{value}' but the run to resume was started with"):
            finetuning._Start.read(tmp_path / "started.json", **{**dict.fromkeys(CHANGES), name: value})
    with pytest.raises(OptionError, match="nothing to resume"):
        finetuning._Start.read(tmp_path / "nowhere.json", None, None, None)
