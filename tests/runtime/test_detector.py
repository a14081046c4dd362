import subprocess
import sys

import pytest

from yolo_edgequant.errors import ContractError, InferenceError
from yolo_edgequant.runtime import Detector


@pytest.mark.parametrize(("name", "value"), [("conf", 2), ("iou", -1), ("max_det", 0), ("threads", 0)])
def test_settings_out_of_range(name, value):
    with pytest.raises(InferenceError, match=f"{name}={value}"):
        Detector("model.tflite", **{name: value})


def test_files_that_are_not_ours(tmp_path):
    with pytest.raises(InferenceError, match="not found"):
        Detector(tmp_path / "missing.tflite")
    (tmp_path / "other.tflite").write_bytes(b"TFL3" * 10)
    with pytest.raises(ContractError, match="it has no metadata"):
        Detector(tmp_path / "other.tflite")


def test_the_runtime_needs_numpy_alone():
    program = """
import sys
for name in ("torch", "ultralytics", "cv2", "rich", "wrapt", "typer", "packaging", "psutil", "yaml", "tensorflow"):
    sys.modules[name] = None  # as if it were not installed
import yolo_edgequant.runtime
print(sorted({name.split(".")[0] for name in sys.modules} - sys.stdlib_module_names))
"""
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr[-600:]
    loaded = set(eval(child.stdout))
    assert {"numpy", "yolo_edgequant"} <= loaded
    assert not loaded & {"PIL", "scipy", "matplotlib", "pandas", "openvino", "ai_edge_litert", "torchvision"}
