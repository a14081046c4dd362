"""The runtime in fresh environments that hold NumPy, an interpreter and this package, and nothing else of ours."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ultralytics import YOLO

from yolo_edgequant.demo.dataset import picture

pytestmark = pytest.mark.export

PROGRAM = """
import json, sys
import numpy as np
from yolo_edgequant.runtime import Detector
image = np.load(sys.argv[1])
detections = [Detector(path)(image).as_dicts() for path in sys.argv[2:]]
light = not sys.modules.keys() & {"torch", "ultralytics", "cv2", "rich", "typer", "wrapt", "psutil", "packaging"}
print(json.dumps({"detections": detections, "light": light, "numpy": np.__version__}))
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory, shapes_data):
    import shutil

    from yolo_edgequant.demo.train import WEIGHTS

    paths = []
    for head in ("raw", "int8"):
        model = YOLO(shutil.copy(WEIGHTS, tmp_path_factory.mktemp(head)))
        paths.append(model.export(format="tflite", quantize=8, data=shapes_data, imgsz=160, head=head))
    return paths


@pytest.mark.parametrize(
    ("packages", "numpy"),
    [(["numpy", "ai-edge-litert>=2.1.5"], "2"), (["numpy==1.26.4", "tflite-runtime==2.14.0"], "1.26")],
    ids=["ai-edge-litert", "tflite-runtime"],
)
def test_a_fresh_environment(tmp_path, files, packages, numpy):
    image = picture(160, np.random.default_rng(1))[0]
    np.save(tmp_path / "image.npy", image)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "fresh"], check=True)
    python = tmp_path / "fresh" / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q"]
    subprocess.run([*install, *packages], check=True)
    subprocess.run([*install, "--no-deps", Path(__file__).parents[2]], check=True)
    names = json.loads(subprocess.check_output([python, "-m", "pip", "list", "--format", "json"]))
    assert not {"torch", "ultralytics", "rich", "typer", "wrapt"} & {entry["name"] for entry in names}
    child = subprocess.run(
        [python, "-c", PROGRAM, tmp_path / "image.npy", *files], cwd=tmp_path, capture_output=True, text=True
    )
    assert child.returncode == 0, child.stderr
    said = json.loads(child.stdout.splitlines()[-1])
    assert said["light"]
    assert said["numpy"].startswith(numpy)
    for detections, path in zip(said["detections"], files, strict=True):
        theirs = YOLO(path, task="detect").predict(image, imgsz=160, verbose=False)[0].boxes
        assert [entry["class"] for entry in detections] == theirs.cls.int().tolist()
        np.testing.assert_allclose([entry["box"] for entry in detections], theirs.xyxy, atol=0.6)
        assert len(detections) >= 1
