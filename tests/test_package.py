import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import yolo_edgequant

ROOT = Path(yolo_edgequant.__file__).parents[1]
HEAVY = {"tensorflow", "openvino", "nncf", "litert_torch", "onnx2tf", "ai_edge_quantizer"}


def python(code, folder, **extra):
    """Run code in a process of its own; what it prints, as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **extra},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


LATE = """
import json, sys, time
from ultralytics.engine.model import Model
before = set(sys.modules)
start = time.perf_counter()
import yolo_edgequant
seconds = time.perf_counter() - start
added = sorted({name.partition(".")[0] for name in set(sys.modules) - before})
patched = vars(Model)["export"].__code__.co_filename
yolo_edgequant.disable()
print(json.dumps([seconds, added, patched, vars(Model)["export"].__code__.co_filename]))
"""

EARLY = """
import json, sys
import yolo_edgequant
imported = sorted({name.partition(".")[0] for name in sys.modules})
from ultralytics.engine.model import Model
print(json.dumps([imported, vars(Model)["export"].__code__.co_filename]))
"""


@pytest.fixture(scope="module")
def late(tmp_path_factory):
    folder = tmp_path_factory.mktemp("late")
    return [python(LATE, folder) for _ in range(3)]


def test_importing_after_ultralytics_is_quick(late):
    assert min(seconds for seconds, *_ in late) < 0.3


def test_importing_after_ultralytics_imports_nothing_heavy(late):
    _, added, _, _ = late[0]
    assert "yolo_edgequant" in added
    assert not HEAVY & set(added)


def test_importing_after_ultralytics_patches_and_disable_undoes_it(late):
    _, _, patched, restored = late[0]
    assert patched == str(ROOT / "yolo_edgequant" / "patching.py")
    assert restored.endswith(str(Path("ultralytics", "engine", "model.py")))


def test_importing_before_ultralytics_imports_nothing_heavy_and_patches_later(tmp_path):
    imported, patched = python(EARLY, tmp_path)
    assert not {*HEAVY, "torch", "ultralytics"} & set(imported)
    assert patched == str(ROOT / "yolo_edgequant" / "patching.py")


VERSION = """
import importlib.metadata, json
real = importlib.metadata.version
importlib.metadata.version = lambda name: "7.0.0" if name == "ultralytics" else real(name)
try:
    import yolo_edgequant
    print(json.dumps("enabled"))
except Exception as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""


def test_an_untested_ultralytics_is_refused_unless_forced_by_the_environment(tmp_path):
    name, message = python(VERSION, tmp_path, YOLO_EDGEQUANT_FORCE="")
    assert name == "UnsupportedVersionError"
    assert "ultralytics 7.0.0" in message
    assert "YOLO_EDGEQUANT_FORCE=1" in message
    assert python(VERSION, tmp_path, YOLO_EDGEQUANT_FORCE="1") == "enabled"


def test_without_ultralytics_it_imports_unpatched(tmp_path):
    code = """
import importlib.util, json
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "ultralytics" else real(name, *rest)
import yolo_edgequant
from yolo_edgequant.upstream import REGISTRY
print(json.dumps(REGISTRY.enabled))
"""
    assert python(code, tmp_path) is False
