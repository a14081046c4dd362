"""Three tiers, each a mark: a test is ``unit`` unless its file or it says ``export`` or ``accuracy``.

``unit`` converts and exports nothing, ``export`` does, ``accuracy`` validates real models on real images, or compares
times and memory, so that nothing may run beside it.
"""

import lzma
import os
import re
import shutil
import sys
from pathlib import Path

os.environ["YOLO_AUTOINSTALL"] = "False"
os.environ["YOLO_OFFLINE"] = "True"
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # workers that all use all cores wait for each other: twice the time was seen

import pytest

SHARED = Path(__file__).parents[2] / "shared"
_TIERS = ("unit", "export", "accuracy")
_OF_FILE = re.compile(r"^pytestmark = pytest\.mark\.(\w+)", re.MULTILINE)


def pytest_ignore_collect(collection_path, config):
    """Leave files of other tiers unread: what they import takes longer than the unit tests."""
    if collection_path.suffix != ".py" or config.getoption("markexpr") not in _TIERS:
        return None
    tier = _OF_FILE.search(collection_path.read_text())
    return True if tier and tier.group(1) != config.getoption("markexpr") else None


def pytest_collection_modifyitems(items):
    for item in items:
        tiers = [tier for tier in _TIERS if item.get_closest_marker(tier)]
        assert len(tiers) <= 1, f"{item.nodeid} is of the tiers {tiers}"
        if not tiers:
            item.add_marker(pytest.mark.unit)


@pytest.fixture(autouse=True)
def _patched_again():
    """Tests may disable the patches; the next one finds them in force."""
    yield
    if "ultralytics" in sys.modules:
        import yolo_edgequant

        yolo_edgequant.enable()


@pytest.fixture(scope="session")
def shapes_data(tmp_path_factory):
    """A drawn data set: 24 images to calibrate on, 40 to validate on, 160 x 160."""
    from yolo_edgequant.demo.dataset import data_set

    return data_set(tmp_path_factory.mktemp("shapes"), 24, 40, 160, seed=3)


@pytest.fixture
def shapes_model(tmp_path):
    """A copy of the embedded detector; exports are written beside it."""
    from yolo_edgequant.demo.train import WEIGHTS

    return Path(shutil.copy(WEIGHTS, tmp_path))


def shared(path):
    """A file of ../shared; where it is absent a skip, and in CI, which has it, a failure."""
    file = SHARED / path
    if not file.exists():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{file} is not on this machine, and in CI it has to be")
        pytest.skip(f"{file} is not on this machine")
    return file


@pytest.fixture
def same_detections(monkeypatch):
    """Compares what the runtime and Ultralytics find with a file in images of several sizes; says how much it is."""
    import cv2
    import numpy as np
    import torch
    from ultralytics import YOLO
    from ultralytics.utils.metrics import box_iou

    from yolo_edgequant.runtime import Detector

    argsort = torch.argsort  # upstream's rotated NMS leaves the order of equal scores open; fix it
    monkeypatch.setattr(torch, "argsort", lambda x, descending=False: argsort(x, descending=descending, stable=True))

    def compare(file, task, images):
        yolo, detector = YOLO(file, task=task), Detector(file, threads=2)
        seen = 0
        for number, path in enumerate(images):
            image = cv2.imread(str(path))
            image = cv2.resize(image, (203, 131)) if number % 2 else image
            theirs = yolo.predict(image, verbose=False, imgsz=160, retina_masks=True)[0]
            ours = detector(image)
            boxes = theirs.obb if task == "obb" else theirs.boxes
            assert ours.classes.tolist() == boxes.cls.int().tolist()
            np.testing.assert_allclose(ours.scores, boxes.conf, atol=1e-3)
            if not len(ours):
                continue
            seen += len(ours)
            assert box_iou(torch.from_numpy(ours.boxes), boxes.xyxy).diagonal().min() > 0.999
            if task == "obb":
                np.testing.assert_allclose(ours.rotated, boxes.xywhr, atol=1e-2)
            if task == "pose":
                np.testing.assert_allclose(ours.keypoints, theirs.keypoints.data, atol=1e-2)
            if task == "segment":
                masks = theirs.masks.data.bool().numpy()
                shared = (masks & ours.masks).sum((1, 2)) / (masks | ours.masks).sum((1, 2))
                assert shared.min() > 0.85  # upstream interpolates in two steps, ours in one: small masks differ
                assert shared.mean() > 0.95
        return seen

    return compare


@pytest.fixture(scope="session")
def coco(tmp_path_factory):
    """The YAML of the real images, in a copy, since Ultralytics writes a cache beside the labels."""
    folder = tmp_path_factory.mktemp("data") / "coco"
    shutil.copytree(shared("data/coco"), folder, copy_function=shutil.copyfile)
    for place in (folder, *(p for p in folder.rglob("*") if p.is_dir())):
        place.chmod(0o755)
    return folder / "coco.yaml"


@pytest.fixture(scope="session")
def reference_model():
    """The real YOLOv8n."""
    return shared("data/weights/yolov8n.pt")


@pytest.fixture(scope="session")
def detector():
    """The embedded detector as a float graph that decodes in the unit square, NHWC, 160 x 160.

    Converted once and kept, its weights with 9 bits after the point; tests/tflite/test_conversion.py holds it against a
    conversion of today.
    """
    return lzma.decompress((Path(__file__).parent / "weights" / "detector.tflite.xz").read_bytes())


@pytest.fixture(scope="session")
def graph(detector):
    from yolo_edgequant.tflite.graph import Graph

    return Graph(detector)


@pytest.fixture(scope="session")
def images():
    """Eight drawn images as the detector takes them."""
    import numpy as np

    from yolo_edgequant.demo.dataset import picture

    drawn = [picture(160, np.random.default_rng(i))[0] for i in range(8)]
    return [np.ascontiguousarray(image[None, ..., ::-1].astype(np.float32) / 255) for image in drawn]
