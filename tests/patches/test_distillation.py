"""What a changed model learns from its teacher: the loss beside upstream's own."""

import copy

import pytest
import torch
from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.nn.distill_model import DistillationModel

import yolo_edgequant
from yolo_edgequant.demo.train import WEIGHTS
from yolo_edgequant.patches import distillation
from yolo_edgequant.training.activations import swap_activation
from yolo_edgequant.training.distillation import averaged, mirrored
from yolo_edgequant.training.fake_quantization import FakeQuantization, attach


@pytest.fixture
def pair():
    """A student and its teacher, and a batch to learn from."""

    def make(activation):
        teacher, student = YOLO(WEIGHTS).model, YOLO(WEIGHTS).model
        student.args = get_cfg(overrides={"imgsz": 64})
        if activation:
            swap_activation(student, activation)
        torch.manual_seed(0)
        for parameter in student.parameters():
            parameter.requires_grad_(True)
        return DistillationModel(teacher, student).train()

    return make


def batch():
    torch.manual_seed(1)
    boxes = torch.tensor([[0.5, 0.5, 0.4, 0.4]] * 2)
    return {
        "img": torch.rand(2, 3, 64, 64),
        "cls": torch.zeros(2, 1),
        "bboxes": boxes,
        "batch_idx": torch.arange(2.0),
    }


def test_only_a_swapped_student_learns_its_teachers_outputs(pair):
    def losses(activation):
        with yolo_edgequant.patched():
            ours, items = copy.deepcopy(pair(activation))(batch())
            yolo_edgequant.disable()
            upstreams, _ = copy.deepcopy(pair(activation))(batch())
        assert torch.equal(ours[:-1], upstreams[:-1])
        return ours[-1] - upstreams[-1], items, upstreams[-1]

    added, items, features = losses("relu6")
    assert added > 0.1
    assert items["dis_loss"].item() == pytest.approx((features + added).item() / 2, rel=1e-4)  # of two images
    assert losses(None)[0] == 0


def test_the_added_term_trains_the_student_and_not_the_teacher(pair):
    model = pair("relu6")
    model.dis = 0.0
    total, _ = model(batch())
    total[-1].backward()
    assert model.student_model.model[0].conv.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.teacher_model.parameters())


def test_a_rounded_student_learns_nothing_but_its_teachers_outputs(pair):
    model = pair(None)
    points = FakeQuantization({0: (-30.0, 30.0)}, (), {0}, "tensor", "tflite")
    attach(model.student_model, points)
    total, _ = model(batch())
    assert (total[:-1] == 0).all()
    assert total[-1] > 0


@pytest.mark.parametrize("fliplr", [0.0, 0.5])
def test_a_rounded_students_teacher_sees_the_mirror_image_as_well(pair, monkeypatch, fliplr):
    seen = []
    monkeypatch.setattr(
        distillation, "output_distance", lambda student, teacher: seen.append(teacher) or student["boxes"].sum()
    )
    model = pair(None)
    model.student_model.args.fliplr = fliplr
    attach(model.student_model, FakeQuantization({}, (), {0}, "tensor", "tflite"))
    images = batch()["img"]
    model(batch())
    with torch.no_grad():
        straight, flipped = (model.teacher_model(image)[1] for image in (images, images.flip(3)))
    levels = [(8, 8), (4, 4), (2, 2)]
    expected = averaged(straight, mirrored(flipped, levels)) if fliplr else straight
    for name in ("boxes", "scores"):
        assert torch.allclose(seen[0][name], expected[name], atol=1e-4)


def test_validation_is_upstreams(pair):
    model = pair("relu6").eval()
    with torch.no_grad():
        _, items = model(batch())
    assert items["dis_loss"] == 0


def test_the_two_branches_of_a_nms_free_head_are_both_matched(monkeypatch):
    seen = []

    def distance(student, teacher):
        seen.append((student["boxes"].shape, teacher["boxes"].shape))
        return student["boxes"].sum()

    monkeypatch.setattr(distillation, "output_distance", distance)
    teacher, student = (YOLO("yolo26n.yaml").model for _ in range(2))
    student.args = get_cfg(overrides={"imgsz": 64})
    swap_activation(student, "relu6")
    DistillationModel(teacher, student).train()(batch())
    assert len(seen) == 2
    assert all(ours == theirs for ours, theirs in seen)
