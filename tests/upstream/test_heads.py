import pytest
import torch
from ultralytics import YOLO

from yolo_edgequant.demo.train import WEIGHTS
from yolo_edgequant.decoding.in_torch import InPixels
from yolo_edgequant.upstream.heads import normalise_head, sum_expectation


@pytest.fixture(params=["yolov8n", "yolo26n", "yolov8n-pose", "yolo26n-pose", "yolov8n-obb", "yolo26n-obb"])
def model(request):
    torch.manual_seed(0)
    made = YOLO(f"{request.param}.yaml").model.eval().requires_grad_(False)
    for weights in made.model[-1].parameters():
        if weights.ndim == 4 and weights.shape[0] > 1:
            weights += torch.randn_like(weights) * 0.1  # random heads give all cells the same box otherwise
    made.model[-1].export = True
    return made


@pytest.mark.parametrize("size", [(64, 64), (96, 160)])
def test_normalised_heads_equal_upstreams_in_pixels(model, size):
    head = model.model[-1]
    head.shape = None
    image = torch.rand(1, 3, *size)
    expected = model(image)
    normalise_head(head, size)
    normalised = model(image)
    assert normalised[:, :4].abs().max() < 8  # shares of the image, not pixels
    pixels = InPixels(model, size, head.nc, getattr(head, "kpt_shape", None))(image)
    assert expected[:, :4].std() > 5
    torch.testing.assert_close(pixels, expected, atol=1e-3, rtol=1e-5)


def test_only_the_instance_changes(model):
    head = model.model[-1]
    normalise_head(head, (64, 64))
    assert "_get_decode_boxes" in vars(head)
    assert type(head)._get_decode_boxes.__module__.startswith("ultralytics")


@pytest.mark.parametrize("weights", [WEIGHTS, WEIGHTS.parents[2] / "tests/weights/shapes26.pt"])
def test_the_expectation_as_a_sum_is_that_of_the_convolution(weights):
    model = YOLO(weights).model.float().eval()
    image = torch.rand(1, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(image)[0]
        sum_expectation(model.model[-1])
        assert torch.allclose(model(image)[0], expected, atol=1e-3)
