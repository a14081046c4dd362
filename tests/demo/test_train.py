import pytest
import torch

from yolo_edgequant.demo import train
from yolo_edgequant.demo.dataset import NAMES, TASKS

MODELS = {"detect": "DetectionModel", "segment": "SegmentationModel", "pose": "PoseModel", "obb": "OBBModel"}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("generation", [8, 26])
def test_every_architecture_is_a_model_of_its_task(task, generation):
    from ultralytics.nn import tasks

    plan = train.architecture(task, generation)
    assert tasks.guess_model_task(plan) == task
    head = getattr(tasks, MODELS[task])(plan, verbose=False).model[-1]
    assert head.nc == len(NAMES)
    assert hasattr(head, "one2one_cv2") == (generation == 26)
    assert head.reg_max == (1 if generation == 26 else 16)


def test_the_embedded_weights_are_of_the_embedded_architecture():
    checkpoint = torch.load(train.WEIGHTS, map_location="cpu", weights_only=False)
    model = checkpoint["model"]
    assert list(model.names.values()) == list(NAMES)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float16}
    assert model.yaml["head"] == train.architecture("detect", 8)["head"]


def test_a_saved_checkpoint_keeps_the_weights_and_no_path_of_the_machine(tmp_path):
    checkpoint = torch.load(train.WEIGHTS, map_location="cpu", weights_only=False)
    checkpoint["model"].args["data"] = checkpoint["train_args"]["data"] = "/home/someone/shapes.yaml"
    checkpoint["model"].pt_path = "/home/someone/best.pt"
    checkpoint |= {"optimizer": {"state": [1]}, "ema": checkpoint["model"], "best_fitness": 1.0}
    torch.save(checkpoint, tmp_path / "best.pt")
    train.save(tmp_path / "best.pt", tmp_path / "saved.pt")
    saved = torch.load(tmp_path / "saved.pt", map_location="cpu", weights_only=False)
    assert (saved["optimizer"], saved["ema"], saved["epoch"]) == (None, None, -1)
    assert saved["train_args"]["data"] == saved["model"].args["data"] == "shapes.yaml"
    assert saved["model"].pt_path == "saved.pt"
    assert b"someone" not in (tmp_path / "saved.pt").read_bytes()
    before, after = checkpoint["model"].state_dict(), saved["model"].state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
