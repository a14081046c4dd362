import copy

import numpy as np
import pytest
import torch
from ultralytics import YOLO
from ultralytics.nn.modules.head import WorldDetect, YOLOEDetect

from tests.upstream.test_heads import HEADS, lively
from yolo_edgequant.decoding.in_torch import Grid, pixel_factors, turned
from yolo_edgequant.demo.dataset import picture
from yolo_edgequant.demo.train import WEIGHTS
from yolo_edgequant.upstream import cells_first, heads
from yolo_edgequant.upstream.export_head import as_exported

SMALL = WEIGHTS.parents[2] / "tests" / "weights"
SIZE = (96, 160)
CELLS = 12 * 20 + 6 * 10 + 3 * 5

#: Files by what they are, and what their heads give besides boxes and scores.
FILES = {
    "detect": (WEIGHTS, None),
    "segment": (SMALL / "shapes-seg.pt", "mask_coefficient"),
    "pose": (SMALL / "shapes-pose.pt", "kpts"),
    "obb": (SMALL / "shapes-obb.pt", "angle"),
    "yolo26": (SMALL / "shapes26.pt", None),
}


@pytest.fixture(scope="module")
def image():
    """A drawn one, cut to SIZE."""
    drawn = picture(160, np.random.default_rng(0))[0][: SIZE[0], :, ::-1].copy()
    return torch.from_numpy(drawn).permute(2, 0, 1)[None].float() / 255


@pytest.fixture(scope="module")
def exported():
    """Makes a model of a file as Ultralytics' exporter has it, each time a copy."""
    models = {}

    def make(kind, nms_free=False):
        if (kind, nms_free) not in models:
            models[kind, nms_free] = as_exported(YOLO(FILES[kind][0]).model, SIZE, nms_free)[0]
        return copy.deepcopy(models[kind, nms_free])

    return make


def decoded(model, image, turn=True, separate=False, integer=False):
    """The names of a model's outputs, and its outputs by name, as shares of the image."""
    head = heads.detection_head(model)
    names = cells_first.decode(head, SIZE, turn, separate, integer)
    outputs = given(model, image)
    assert len(outputs) == len(names)
    return names, dict(zip(names, outputs, strict=True))


def given(model, image):
    outputs = model(image)
    return outputs if isinstance(outputs, tuple) else (outputs,)


def in_pixels(model, detections):
    """Shares of the image as upstream's heads have them."""
    head = heads.detection_head(model)
    factors = pixel_factors(SIZE, head.nc, detections.shape[1], getattr(head, "kpt_shape", None))
    return detections * torch.tensor(factors).view(1, -1, 1)


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize(
    ("kind", "integer"),
    [*((kind, False) for kind in FILES), *((kind, True) for kind in FILES if kind != "obb")],  # for which see below
)
def test_it_gives_what_upstreams_head_gives_in_pixels(exported, image, kind, integer, separate):
    model, (_, extra) = exported(kind), FILES[kind]
    expected, *prototypes = given(model, image)
    names, outputs = decoded(model, image, separate=separate, integer=integer)
    apart = [extra] if separate and extra else []
    assert names == ["detections", *apart, *(["prototypes"] if kind == "segment" else [])]
    detections = torch.cat([outputs[name] for name in ["detections", *apart]], 1)
    assert outputs["detections"].shape == (1, expected.shape[1] - (outputs[extra].shape[1] if apart else 0), CELLS)
    assert detections[:, :4].abs().max() < 8, "shares of the image"
    assert expected[:, :4].std() > 5
    torch.testing.assert_close(in_pixels(model, detections), expected, atol=1e-3, rtol=1e-5)
    if prototypes:
        torch.testing.assert_close(outputs["prototypes"], prototypes[0])


def test_the_cells_of_an_nms_free_head_have_corners_and_its_reader_chooses(exported, image):
    model = exported("yolo26", nms_free=True)
    head = heads.detection_head(model)
    (expected,) = given(model, image)
    _, outputs = decoded(model, image, integer=True)
    cells = in_pixels(model, outputs["detections"])
    assert cells.shape == (1, 4 + head.nc, CELLS)
    assert expected.shape == (1, 300, 6)
    torch.testing.assert_close(head.postprocess(cells.permute(0, 2, 1)), expected, atol=1e-3, rtol=1e-5)


def test_an_nms_free_head_in_float_chooses_itself(exported, image):
    model = exported("yolo26", nms_free=True)
    (expected,) = given(model, image)
    _, outputs = decoded(model, image)
    assert expected[0, 0, 4] > 0.5, "it detects"
    pixels = outputs["detections"] * torch.tensor(pixel_factors(SIZE, 2, 6, None))
    torch.testing.assert_close(pixels, expected, atol=1e-3, rtol=1e-5)


def test_the_branch_for_nms_gives_all_cells_in_float_too(exported, image):
    model = exported("yolo26")
    assert decoded(model, image)[1]["detections"].shape[2] == CELLS


def test_rotated_boxes_of_integer_files_are_off_by_less_than_the_polynomials_are(exported, image):
    model = exported("obb")
    expected = given(model, image)[0]
    _, outputs = decoded(model, image, integer=True)
    error = (in_pixels(model, outputs["detections"]) - expected).abs()
    assert 1e-4 < error[:, :2].max() < 0.05, "of the centre, pixels"
    torch.testing.assert_close(error[:, 2:], torch.zeros_like(error[:, 2:]), atol=1e-3, rtol=0)


def test_boxes_that_stay_unturned_are_turned_by_their_reader(exported, image):
    model = exported("obb")
    expected = given(model, image)[0]
    _, outputs = decoded(model, image, turn=False, integer=True, separate=True)
    detections, angle = outputs["detections"], outputs["angle"]
    unturned = in_pixels(model, detections)
    assert (unturned - expected[:, :-1])[:, :2].abs().max() > 1, "something is left to turn"
    boxes = turned(detections[:, :4], angle, Grid.of(SIZE, [8, 16, 32]))
    whole = in_pixels(model, torch.cat((boxes, detections[:, 4:], angle), 1))
    torch.testing.assert_close(whole, expected, atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("kind", FILES)
def test_only_the_instance_changes(exported, image, kind):
    model, other = exported(kind), exported(kind)
    before, weights = given(other, image), copy.deepcopy(model.state_dict())
    decoded(model, image)
    head = heads.detection_head(model)
    assert "forward" in vars(head)
    assert type(head).forward.__module__.startswith("ultralytics")
    assert all(torch.equal(one, after) for one, after in zip(before, given(other, image), strict=True))
    assert model.state_dict().keys() == weights.keys()
    assert all(torch.equal(values, weights[name]) for name, values in model.state_dict().items())


def test_scores_that_are_no_outputs_of_convolutions_have_upstreams_way(exported):
    channels = (16, 16, 16)
    assert cells_first.is_possible(heads.detection_head(exported("detect")))
    assert cells_first.is_possible(WorldDetect(2, 16, with_bn=True, ch=channels))
    assert not cells_first.is_possible(WorldDetect(2, 16, with_bn=False, ch=channels))
    prompted = YOLOEDetect(2, 16, ch=channels)
    assert cells_first.is_possible(prompted)
    prompted.lrpc = torch.nn.ModuleList()
    assert not cells_first.is_possible(prompted)


@pytest.mark.export
@pytest.mark.parametrize("name", HEADS)
def test_every_head_gives_what_upstreams_gives(name):
    model = lively(name, torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(1)))
    head = model.model[-1]
    image = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(2))
    expected = given(model, image)[0]
    heads.fold_texts(model)
    assert cells_first.is_possible(head)
    _, outputs = decoded(model, image)
    assert expected[:, :4].std() > 5
    torch.testing.assert_close(in_pixels(model, outputs["detections"]), expected, atol=2e-3, rtol=1e-4)
