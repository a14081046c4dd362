import copy

import numpy as np
import pytest
import torch
from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.nn.distill_model import DistillationModel

import yolo_edgequant
from yolo_edgequant.demo.train import WEIGHTS
from yolo_edgequant.errors import OptionError
from yolo_edgequant.training.activations import swap_activation
from yolo_edgequant.training.fake_quantization import FakeQuantization
from yolo_edgequant.training.distillation import averaged, mirrored, output_distance


def outputs(nc=3, reg_max=4, cells=5, seed=0):
    random = torch.Generator().manual_seed(seed)
    return {
        "boxes": torch.randn(2, 4 * reg_max, cells, generator=random),
        "scores": torch.randn(2, nc, cells, generator=random),
    }


@pytest.mark.parametrize("reg_max", [1, 4])
def test_the_distance_is_zero_only_at_the_teacher(reg_max):
    teacher, other = outputs(reg_max=reg_max), outputs(reg_max=reg_max, seed=1)
    assert output_distance(teacher, teacher).item() == pytest.approx(0, abs=1e-5)
    assert output_distance({**teacher, "boxes": other["boxes"]}, teacher).item() > 0.1
    assert output_distance({**teacher, "scores": other["scores"]}, teacher).item() > 0.1


def test_the_distance_is_a_divergence_where_the_teacher_sees_something():
    student, teacher = outputs(seed=1), outputs()
    p, q = (o["scores"].sigmoid().double().numpy() for o in (teacher, student))
    scores = (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).sum()
    a, b = (o["boxes"].double().view(2, 4, 4, 5).softmax(2).numpy() for o in (teacher, student))
    sides = (a * np.log(a / b)).sum(2).mean(1)
    best = p.max(1)
    expected = (4.0 * scores + 12.0 * (sides * best).sum()) / best.sum()
    assert output_distance(student, teacher).item() == pytest.approx(expected, rel=1e-5)


def test_other_outputs_than_the_teachers_are_refused():
    with pytest.raises(OptionError, match=r"the teacher's scores are \(2, 5\) .* the model's \(3, 5\)"):
        output_distance(outputs(), outputs(nc=2))


LEVELS = [(2, 4), (1, 2)]


def test_mirrored_outputs_are_of_the_mirror_image():
    random = torch.Generator().manual_seed(0)
    cells = sum(height * width for height, width in LEVELS)
    given = {"boxes": torch.rand(1, 4, cells, generator=random), "scores": torch.rand(1, 3, cells, generator=random)}

    def decoded(outputs):
        """(A, 4) boxes in shares of the image and their (A, 3) scores."""
        centres = [
            ((x + 0.5) / width, (y + 0.5) / height, 1 / width, 1 / height)
            for height, width in LEVELS
            for y in range(height)
            for x in range(width)
        ]
        x, y, w, h = torch.tensor(centres).unbind(1)
        left, top, right, bottom = outputs["boxes"][0]
        return torch.stack((x - left * w, y - top * h, x + right * w, y + bottom * h), 1), outputs["scores"][0].T

    boxes, scores = decoded(given)
    made, made_scores = decoded(mirrored(given, LEVELS))
    expected = torch.stack((1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]), 1)
    for box, score in zip(expected, scores, strict=True):
        at = (made - box).abs().sum(1).argmin()
        assert torch.allclose(made[at], box, atol=1e-6)
        assert torch.equal(made_scores[at], score)


@pytest.mark.parametrize("reg_max", [1, 4])
def test_the_average_of_outputs_is_of_probabilities(reg_max):
    one, other = outputs(reg_max=reg_max), outputs(reg_max=reg_max, seed=1)
    made = averaged(one, other)
    assert torch.allclose(
        made["scores"].sigmoid(), (one["scores"].sigmoid() + other["scores"].sigmoid()) / 2, atol=1e-5
    )
    if reg_max == 1:
        assert torch.allclose(made["boxes"], (one["boxes"] + other["boxes"]) / 2)
        return
    made, one, other = (o["boxes"].view(2, 4, reg_max, 5).softmax(2) for o in (made, one, other))
    assert torch.allclose(made, (one + other) / 2, atol=1e-5)


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
    model.student_model.add_module("fake_quantization", points)
    total, _ = model(batch())
    assert (total[:-1] == 0).all()
    assert total[-1] > 0


@pytest.mark.parametrize("fliplr", [0.0, 0.5])
def test_a_rounded_students_teacher_sees_the_mirror_image_as_well(pair, monkeypatch, fliplr):
    from yolo_edgequant.upstream import distillation

    seen = []
    monkeypatch.setattr(
        distillation, "output_distance", lambda student, teacher: seen.append(teacher) or student["boxes"].sum()
    )
    model = pair(None)
    model.student_model.args.fliplr = fliplr
    model.student_model.add_module("fake_quantization", FakeQuantization({}, (), {0}, "tensor", "tflite"))
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
    from yolo_edgequant.upstream import distillation

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
