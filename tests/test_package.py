import importlib
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import yolo_edgequant
from yolo_edgequant.errors import UnsupportedVersionError
from yolo_edgequant.patches import REFUSALS, REGISTRY

ROOT = Path(yolo_edgequant.__file__).parents[1]
PATCHED = str(ROOT / "yolo_edgequant" / "patching.py")
HEAVY = {"tensorflow", "openvino", "nncf", "litert_torch", "onnx2tf", "ai_edge_quantizer"}


def python(code, folder, *path, **extra):
    """Run code in a process of its own; the last line that it prints, as JSON, and what it writes to stderr."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT))), **extra},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


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
import json, sys, time
start = time.perf_counter()
import yolo_edgequant
seconds = time.perf_counter() - start
imported = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps([seconds, imported]))
"""

THEN = """
import json
import yolo_edgequant
from ultralytics.engine.model import Model
print(json.dumps(vars(Model)["export"].__code__.co_filename))
"""


@pytest.mark.export
def test_importing_after_ultralytics_patches_at_once_and_disable_undoes_it(tmp_path):
    (seconds, added, patched, restored), _ = python(LATE, tmp_path)
    assert seconds < 2
    assert "yolo_edgequant" in added
    assert not HEAVY & set(added)
    assert patched == PATCHED
    assert restored.endswith(str(Path("ultralytics", "engine", "model.py")))


@pytest.mark.export
def test_importing_before_ultralytics_patches_it_when_it_arrives(tmp_path):
    assert python(THEN, tmp_path)[0] == PATCHED


def test_importing_is_quick_and_imports_nothing_heavy(tmp_path):
    (seconds, imported), noise = python(EARLY, tmp_path)
    assert seconds < 2  # a tenth of it on an idle machine
    assert not {*HEAVY, "torch", "ultralytics", "cv2", "scipy"} & set(imported)
    assert noise == ""


def test_without_ultralytics_it_imports_unpatched(tmp_path):
    code = """
import importlib.util, json
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "ultralytics" else real(name, *rest)
import yolo_edgequant
from yolo_edgequant.patches import REFUSALS, REGISTRY
print(json.dumps([REGISTRY.enabled, REFUSALS.enabled]))
"""
    assert python(code, tmp_path) == ([False, False], "")


# An Ultralytics of another version: what the package looks at, its metadata and the module with Model, and no torch.
OTHER = '''\
class Model:
    def export(self, **kwargs):
        """Upstream's own."""
        return kwargs

    def train(self, **kwargs):
        return kwargs
'''


@pytest.fixture
def other(tmp_path):
    """Make a folder that goes in front of the import path and holds an Ultralytics that nobody has tested."""

    def install(version):
        folder = tmp_path / version
        engine = folder / "ultralytics" / "engine"
        engine.mkdir(parents=True)
        for place in (engine.parent, engine):
            (place / "__init__.py").write_text("")
        (engine / "model.py").write_text(OTHER)
        info = folder / f"ultralytics-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: ultralytics\nVersion: {version}\n")
        return folder

    return install


UNTESTED = """
import json
import yolo_edgequant
from yolo_edgequant.patches import REFUSALS, REGISTRY
from yolo_edgequant.runtime import Detector
from ultralytics.engine.model import Model

def ends(call):
    try:
        return call()
    except Exception as error:
        return [type(error).__name__, str(error)]

def inside():
    with yolo_edgequant.options(head="raw"):
        return Model().export(format="onnx")

def outside_again():
    yolo_edgequant.disable()
    return Model().export(head="raw")

print(json.dumps({
    "patched": REGISTRY.enabled,
    "refused": REFUSALS.enabled,
    "plain": ends(lambda: Model().export(format="onnx", half=True)),
    "given": ends(lambda: Model().export(format="tflite", head="raw", io="int8")),
    "inside": ends(inside),
    "enable": ends(yolo_edgequant.enable),
    "detector": Detector.__name__,
    "disabled": ends(outside_again),
}))
"""


@pytest.mark.parametrize("version", ["8.3.0", "8.4.191", "9.0.0.dev1"])
def test_an_untested_ultralytics_is_left_unpatched_and_said_so_once(other, tmp_path, version):
    said, warned = python(UNTESTED, tmp_path, other(version), YOLO_EDGEQUANT_FORCE="")
    (warning,) = warned.splitlines()
    assert warning.startswith(f"Ultralytics is left unpatched: ultralytics {version} is outside the range")
    assert "YOLO_EDGEQUANT_FORCE=1" in warning
    assert (said["patched"], said["refused"]) == (False, True)
    assert said["plain"] == {"format": "onnx", "half": True}
    assert said["detector"] == "Detector"
    for call, options in (("given", "head='raw', io='int8' needs"), ("inside", "head='raw' needs")):
        name, message = said[call]
        assert name == "UnsupportedVersionError"
        assert message.startswith(options)
        assert f"ultralytics {version} is not a version" in message
        assert "\n" not in message
    assert said["enable"][0] == "UnsupportedVersionError"
    assert said["disabled"] == {"head": "raw"}, "disable() takes the refusal away, too"


def test_an_untested_ultralytics_is_patched_if_the_environment_forces_it(other, tmp_path):
    code = """
import json
import yolo_edgequant
from yolo_edgequant.patches import REFUSALS, REGISTRY
from ultralytics.engine.model import Model
print(json.dumps([REGISTRY.enabled, REFUSALS.enabled, Model.export.__wrapped__.__doc__]))
"""
    for value, enabled in (("1", [True, False]), ("0", [False, True])):
        (*state, original), warned = python(code, tmp_path, other(f"8.4.19{value}1"), YOLO_EDGEQUANT_FORCE=value)
        assert state == enabled
        assert (warned == "") == (value == "1")
        assert original == "Upstream's own."


@pytest.mark.export
def test_an_untested_ultralytics_still_exports(tmp_path):
    """The real one, called 8.4.191: its own export is its own, and ours ends in one line before any work."""
    code = """
import importlib.metadata, json
from pathlib import Path
real = importlib.metadata.version
importlib.metadata.version = lambda name: "8.4.191" if name == "ultralytics" else real(name)
import shutil
import yolo_edgequant
from yolo_edgequant.demo.train import WEIGHTS
from ultralytics import YOLO
model = YOLO(shutil.copy(WEIGHTS, "."))
try:
    model.export(format="litert", quantize=8, data="missing.yaml", head="raw")
except yolo_edgequant.UnsupportedVersionError as error:
    print(error)
    before = sorted(str(path) for path in Path().iterdir())
    file = model.export(format="torchscript", imgsz=64)
    print(json.dumps([before, Path(file).name, YOLO(file, task="detect").predict("x.png", imgsz=64)[0].orig_shape]))
"""
    import cv2
    import numpy as np

    cv2.imwrite(str(tmp_path / "x.png"), np.zeros((50, 40, 3), np.uint8))
    (before, file, shape), warned = python(code, tmp_path, YOLO_EDGEQUANT_FORCE="")
    assert (before, file, shape) == (["shapes.pt", "x.png"], "shapes.torchscript", [50, 40])
    assert warned.count("left unpatched") == 1


def extras():
    """The extras of pyproject.toml, each a list of requirements."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {name: [Requirement(text) for text in lines] for name, lines in project["optional-dependencies"].items()}


def test_the_extras_ask_for_the_ultralytics_that_the_patches_were_tested_with():
    asked = {name: r.specifier for name, lines in extras().items() for r in lines if r.name == "ultralytics"}
    assert set(asked) == {"litert", "openvino"}
    tested = {SpecifierSet(patch.versions) for patch in REGISTRY.patches}
    assert set(asked.values()) == tested
    assert len(tested) == 1


def test_a_refusal_is_for_every_version():
    assert {patch.versions for patch in REFUSALS.patches} == {">=0"}


def targets():
    """What stands at the place of each patched function, by module, and name."""
    return {
        (patch.module, patch.target): REGISTRY._target(patch, importlib.import_module(patch.module))[1]
        for patch in REGISTRY.patches
    }


def test_enable_disable_and_patched_restore_exactly():
    yolo_edgequant.disable()
    upstream = targets()
    assert all(not hasattr(function, "__wrapped__") for function in upstream.values())
    with yolo_edgequant.patched():
        inside = targets()
        assert all(inside[place].__wrapped__ is upstream[place] for place in upstream)
    assert targets() == upstream
    yolo_edgequant.enable()
    yolo_edgequant.enable()
    assert all(function.__wrapped__ is upstream[place] for place, function in targets().items())
    with yolo_edgequant.patched():
        pass
    assert REGISTRY.enabled
    yolo_edgequant.disable()
    assert targets() == upstream
    assert not REGISTRY.enabled


def test_a_refused_version_is_refused_inside_patched_and_the_state_kept(monkeypatch):
    from ultralytics.engine.model import Model

    from yolo_edgequant import patching

    yolo_edgequant.disable()
    upstream = vars(Model)["export"]
    monkeypatch.setattr(patching.metadata, "version", lambda name: "8.4.191")
    with pytest.raises(UnsupportedVersionError, match=r"8\.4\.191"), yolo_edgequant.patched():
        pytest.fail("the body must not run")
    assert vars(Model)["export"] is upstream
    with pytest.raises(UnsupportedVersionError):
        yolo_edgequant.enable()
    refusal = vars(Model)["export"]
    assert refusal.__wrapped__ is upstream
    with pytest.raises(UnsupportedVersionError), yolo_edgequant.patched():
        pytest.fail("the body must not run")
    assert vars(Model)["export"].__wrapped__ is upstream, "the refusal is in force again"
    with yolo_edgequant.patched(force=True):
        assert (REGISTRY.enabled, REFUSALS.enabled) == (True, False)
        assert vars(Model)["export"].__wrapped__ is upstream
    assert (REGISTRY.enabled, REFUSALS.enabled) == (False, True)
    yolo_edgequant.disable()
    assert vars(Model)["export"] is upstream


def test_finetune_is_the_function_whatever_was_imported_before():
    import yolo_edgequant.finetuning as module

    assert yolo_edgequant.finetune is module.finetune
    assert callable(yolo_edgequant.finetune)
    assert yolo_edgequant.finetuning is module
    from yolo_edgequant import finetune, swap_activation
    from yolo_edgequant.training import activations

    assert finetune is module.finetune
    assert swap_activation is activations.swap_activation


def test_every_public_name_is_there_and_another_is_not():
    assert all(getattr(yolo_edgequant, name) is not None for name in yolo_edgequant.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'fine_tune'"):
        _ = yolo_edgequant.fine_tune
