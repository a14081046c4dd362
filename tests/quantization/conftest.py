import copy

import pytest
import torch

from yolo_edgequant.conversion.litert import to_tflite
from yolo_edgequant.quantization.graph import Graph


@pytest.fixture(scope="session")
def detector():
    """The embedded detector as a float graph with a normalised head, NHWC, 160 x 160."""
    from ultralytics import YOLO

    from yolo_edgequant.demo.train import WEIGHTS
    from yolo_edgequant.upstream.heads import normalise_head

    model = copy.deepcopy(YOLO(WEIGHTS).model).float().eval().requires_grad_(False).fuse()
    model.model[-1].export = True
    normalise_head(model.model[-1], (160, 160))
    return to_tflite(model, torch.zeros(1, 3, 160, 160), channels_last=True)


@pytest.fixture(scope="session")
def graph(detector):
    return Graph(detector)


@pytest.fixture(scope="session")
def images():
    """Eight drawn images as the detector takes them."""
    import numpy as np

    from yolo_edgequant.demo.draw import picture

    drawn = [picture(160, np.random.default_rng(i))[0] for i in range(8)]
    return [np.ascontiguousarray(image[None, ..., ::-1].astype(np.float32) / 255) for image in drawn]
