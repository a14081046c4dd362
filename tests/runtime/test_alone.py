"""The runtime in a fresh environment that holds NumPy, an interpreter and this package, and nothing else of ours."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ultralytics import YOLO

from yolo_edgequant.demo.dataset import picture

pytestmark = pytest.mark.slow

PROGRAM = """
import json, sys
import numpy as np
from yolo_edgequant.runtime import Detector
found = Detector(sys.argv[1])(np.load(sys.argv[2]))
light = not sys.modules.keys() & {"torch", "ultralytics", "cv2", "rich", "typer", "wrapt", "psutil", "packaging"}
print(json.dumps({"found": found.as_dicts(), "light": light}))
"""


def test_a_fresh_environment(tmp_path, shapes_model, shapes_data):
    path = YOLO(shapes_model).export(format="tflite", quantize=8, data=shapes_data, imgsz=160, head="raw")
    image = picture(160, np.random.default_rng(1))[0]
    np.save(tmp_path / "image.npy", image)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "fresh"], check=True)
    python = tmp_path / "fresh" / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q"]
    subprocess.run([*install, "numpy", "ai-edge-litert>=2.3,<2.4"], check=True)
    subprocess.run([*install, "--no-deps", Path(__file__).parents[2]], check=True)
    names = json.loads(subprocess.check_output([python, "-m", "pip", "list", "--format", "json"]))
    assert not {"torch", "ultralytics", "rich", "typer", "wrapt"} & {entry["name"] for entry in names}
    run = subprocess.run(
        [python, "-c", PROGRAM, path, tmp_path / "image.npy"], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    said = json.loads(run.stdout)
    assert said["light"]
    theirs = YOLO(path, task="detect").predict(image, imgsz=160, verbose=False)[0]
    assert [entry["class"] for entry in said["found"]] == theirs.boxes.cls.int().tolist()
    assert len(said["found"]) >= 1
