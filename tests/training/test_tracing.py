"""The forward pass as a list of calls, the same in training and inference up to the decoding of boxes."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from ultralytics import YOLO

from yolo_edgequant.demo.train import WEIGHTS
from yolo_edgequant.training.fake_quantization import FakeQuantization, Trace, attach
from yolo_edgequant.training.tensor_matching import fingerprint, probe_image
from yolo_edgequant.training.tracing import fuse_batch_norm, let_train, trace, tracing

NMS_FREE = WEIGHTS.parents[2] / "tests/weights/shapes26.pt"
SHAPE = (1, 3, 64, 96)


@pytest.fixture(scope="module")
def fused():
    return fuse_batch_norm(YOLO(WEIGHTS).model.float())


def test_the_calls_are_those_of_the_layers_and_their_fingerprints_of_their_results(fused):
    model = copy.deepcopy(fused)
    calls, fingerprints = trace(model, SHAPE)
    convolutions = [m for name, m in model.named_modules() if isinstance(m, nn.Conv2d) and "dfl" not in name]
    assert [call.name for call in calls].count("conv2d") == len(convolutions)
    assert set(fingerprints) == set(range(len(calls)))
    with torch.no_grad():
        first = model.model[0].conv(torch.from_numpy(probe_image(SHAPE)))
    np.testing.assert_allclose(fingerprints[0], fingerprint(first.numpy()), rtol=1e-5)


def test_training_and_inference_make_the_same_calls_since_decoding_is_left_out(fused):
    model = copy.deepcopy(fused)
    training, _ = trace(model, SHAPE)
    inference, _ = trace(model, SHAPE, training=False)
    assert inference == training
    seen = Trace()
    with torch.no_grad(), seen:
        model.eval()(torch.from_numpy(probe_image(SHAPE)))
    assert len(seen.calls) > len(training), "the head decodes when nobody pauses it"


def test_a_trace_is_in_float(fused):
    model = copy.deepcopy(fused)
    _, plain = trace(model, SHAPE)
    attach(model, FakeQuantization({0: (-0.01, 0.01)}, (), {0}, "tensor", "tflite"))
    _, again = trace(model, SHAPE)
    np.testing.assert_allclose(again[0], plain[0])
    np.testing.assert_allclose(again[max(again)], plain[max(plain)])


def test_the_head_is_put_back(fused):
    model = copy.deepcopy(fused)
    with tracing(model, Trace()):
        assert "_inference" in vars(model.model[-1])
    assert "_inference" not in vars(model.model[-1])


@pytest.mark.parametrize("weights", [WEIGHTS, NMS_FREE], ids=["one branch", "two branches"])
def test_fusing_keeps_both_branches_and_lets_all_but_dfl_learn(weights):
    model = YOLO(weights).model.float().eval()
    image = torch.from_numpy(probe_image((1, 3, 160, 160)))
    with torch.no_grad():
        expected = model(image)[0]
    branches = [name for name in ("cv2", "cv3", "one2one_cv2", "one2one_cv3") if hasattr(model.model[-1], name)]
    assert fuse_batch_norm(model) is model
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    for name in branches:
        assert getattr(model.model[-1], name) is not None
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert all(".dfl." in name for name in frozen)
    assert len(frozen) == ("one2one_cv2" not in branches)
    with torch.no_grad():
        outputs = model(image)[0]
    assert torch.allclose(outputs, expected, atol=1e-2)


def test_let_train_leaves_the_numbers_of_dfl():
    model = YOLO(WEIGHTS).model.requires_grad_(False)
    let_train(model)
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["model.22.dfl.conv.weight"]
