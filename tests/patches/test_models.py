"""Models that were changed are loaded, built again and run as they were left."""

import copy

import pytest
import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.nn import tasks

import yolo_edgequant
from yolo_edgequant.demo.train import WEIGHTS
from yolo_edgequant.errors import MissingToolError
from yolo_edgequant.training.fake_quantization import FakeQuantization, attach, without_fake_quantization


def test_a_checkpoint_trained_quantization_aware_by_upstream_says_what_it_needs(shapes_model, tmp_path):
    checkpoint = torch.load(shapes_model, weights_only=False)
    torch.save({**checkpoint, "modelopt": {"modelopt": {}, "ranges": {}}}, tmp_path / "qat.pt")
    with pytest.raises(MissingToolError, match=r"trained quantization-aware .* needs nvidia-modelopt") as raised:
        YOLO(tmp_path / "qat.pt")
    assert "\n" not in str(raised.value)


# name SiLU themselves, or share it in a class of their own: upstream's YAML key does not reach them
BLOCKS = {
    "RepNCSPELAN4": ([8, 8, 4, 1], 12),
    "C2fCIB": ([8, True, True], 6),
    "PSA": ([128], 2),
    "BottleneckCSP": ([8], 3),
    "HGStem": ([8, 8], 5),
}
RECTIFIERS = (nn.SiLU, nn.ReLU, nn.ReLU6, nn.Hardswish, nn.LeakyReLU)


def rectifiers(model):
    """The activation classes below a module, one entry for each place that holds one."""
    return [type(c) for m in model.modules() for c in m._modules.values() if type(c) in RECTIFIERS]


@pytest.mark.parametrize("block", BLOCKS)
def test_a_model_that_is_built_again_keeps_its_activations_in_every_block(block):
    arguments, least = BLOCKS[block]
    first = [[-1, 1, "Conv", [128, 1]]] if block == "PSA" else []
    plan = {"nc": 1, "backbone": [*first, [-1, 1, block, arguments]], "head": []}
    plain, _ = tasks.parse_model(copy.deepcopy(plan), 3, verbose=False)
    recorded = {**plan, "activation": "torch.nn.ReLU6()", "edgequant_activation": "relu6"}
    rebuilt, _ = tasks.parse_model(recorded, 3, False)
    assert len(rectifiers(rebuilt)) == len(rectifiers(plain)) >= least
    assert set(rectifiers(rebuilt)) == {nn.ReLU6}
    assert set(rectifiers(plain)) <= {nn.SiLU, nn.ReLU}


def test_a_model_with_a_fake_quantization_rounds_until_it_is_taken_away():
    model = YOLO(WEIGHTS).model.float().eval()
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = model(image)[0]
        attach(model, FakeQuantization({0: (-1.0, 1.0)}, (), {0}, "tensor", "tflite"))
        rounded = model(image)[0]
        assert torch.equal(without_fake_quantization(model)(image)[0], plain)
        yolo_edgequant.disable()
        assert torch.equal(model(image)[0], plain), "upstream knows nothing of it"
    assert (rounded - plain).abs().max() > 0
