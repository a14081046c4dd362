"""Distillation's arithmetic; the loss that uses it is tested in tests/patches/test_training.py."""

import numpy as np
import pytest
import torch

from yolo_edgequant.errors import OptionError
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
