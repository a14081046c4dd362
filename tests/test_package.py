import ast
import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import yolo_edgequant
from yolo_edgequant.errors import UnsupportedVersionError
from yolo_edgequant.needs import missing
from yolo_edgequant.patches import FINETUNING, REGISTRY, TESTED, TRAINING
from yolo_edgequant.targets.formats import PROFILES

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
import importlib.util, json, sys
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "ultralytics" else real(name, *rest)
import yolo_edgequant
from yolo_edgequant.patches import REGISTRY
from yolo_edgequant.runtime import Detector
print(json.dumps([REGISTRY.enabled, Detector.__name__, "torch" in sys.modules]))
"""
    assert python(code, tmp_path) == ([False, "Detector", False], "")


# An Ultralytics of another version: its metadata and the module with Model, and no torch.
MODEL = '''\
class Model:
    overrides = {}

    def export(self, **kwargs):
        """Upstream's own."""
        return kwargs

    def train(self, trainer=None, **kwargs):
        return kwargs
'''


@pytest.fixture
def other(tmp_path):
    """Make a folder that goes in front of the import path and holds an Ultralytics that lacks nearly everything."""

    def install(version, model=MODEL):
        folder = tmp_path / version
        engine = folder / "ultralytics" / "engine"
        engine.mkdir(parents=True)
        for place in (engine.parent, engine):
            (place / "__init__.py").write_text("")
        (engine / "model.py").write_text(model)
        called(folder, version)
        return folder

    return install


def called(folder, version):
    """Let an Ultralytics in a folder be of a version."""
    info = folder / f"ultralytics-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: ultralytics\nVersion: {version}\n")


LACKING = """
import json, sys
import yolo_edgequant
from yolo_edgequant.patches import REGISTRY
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
    "enabled": REGISTRY.enabled,
    "plain": ends(lambda: Model().export(format="onnx", half=True)),
    "given": ends(lambda: Model().export(format="onnx", head="raw", io="int8")),
    "int8": ends(lambda: Model().export(format="tflite", quantize=8)),
    "inside": ends(inside),
    "trained": ends(lambda: Model().train(epochs=1)),
    "activation": ends(lambda: Model().train(activation="relu6")),
    "finetune": ends(lambda: yolo_edgequant.finetune("x.pt", "x.yaml")),
    "enable": ends(yolo_edgequant.enable),
    "detector": Detector.__name__,
    "disabled": ends(outside_again),
    "torch": "torch" in sys.modules,
}))
"""
REFUSED = {
    "given": "head='raw', io='int8'",
    "int8": "format='tflite', quantize=8",
    "inside": "head='raw'",
    "activation": "activation='relu6'",
    "finetune": "finetune()",
}


@pytest.mark.parametrize("version", ["8.3.0", "8.4.190", "9.0.0.dev1"])
def test_an_ultralytics_that_lacks_nearly_everything_does_its_own_and_refuses_ours(other, tmp_path, version):
    said, noise = python(LACKING, tmp_path, other(version), YOLO_EDGEQUANT_FORCE="")
    assert noise == "", "nothing is asked of us yet, and then an error says it"
    assert said["enabled"]
    assert said["plain"] == {"format": "onnx", "half": True}
    assert said["trained"] == {"epochs": 1}
    for call, asked in REFUSED.items():
        name, message = said[call]
        assert name == "UnsupportedVersionError"
        assert message.startswith(f"{asked} is not possible with ultralytics {version}: ")
        assert ", which yolo_edgequant needs; " in message
        assert f"({TESTED}" in message
        assert "), or set YOLO_EDGEQUANT_FORCE=1" in message
        assert "\n" not in message
    assert said["enable"] is None
    assert said["detector"] == "Detector"
    assert said["disabled"] == {"head": "raw"}, "disable() takes the refusal away, too"
    assert not said["torch"]


def test_an_ultralytics_without_the_door_says_once_that_nothing_is_ours(other, tmp_path):
    model = MODEL.replace("def export(", "def write(")
    code = """
import json
import yolo_edgequant
from ultralytics.engine.model import Model
yolo_edgequant.enable()
with yolo_edgequant.patched():
    print(json.dumps([hasattr(Model.train, "__wrapped__"), hasattr(Model.write, "__wrapped__")]))
"""
    state, noise = python(code, tmp_path, other("9.0.0", model), YOLO_EDGEQUANT_FORCE="")
    assert state == [True, False]
    (line,) = noise.splitlines()
    assert "ultralytics 9.0.0: ultralytics.engine.model has no Model.export, which yolo_edgequant needs" in line
    assert all(name in line for name in PROFILES)


def test_the_environment_lets_what_lacks_something_be_tried(other, tmp_path):
    code = """
import json
import yolo_edgequant
from ultralytics.engine.model import Model
try:
    print(json.dumps([Model().export(format="tflite", quantize=8), Model.export.__wrapped__.__doc__]))
except yolo_edgequant.EdgeQuantError as error:
    print(json.dumps([type(error).__name__, Model.export.__wrapped__.__doc__]))
"""
    for value, first in (("1", {"format": "tflite", "quantize": 8}), ("0", "UnsupportedVersionError")):
        said, noise = python(code, tmp_path, other(f"8.4.19{value}1"), YOLO_EDGEQUANT_FORCE=value)
        assert (said, noise) == ([first, "Upstream's own."], "")


@pytest.mark.parametrize("source", ["a package", "a folder"])
def test_an_ultralytics_that_was_never_installed_hinders_nobody(tmp_path, source):
    """A clone beside the program: there is something to import, and no version of it."""
    (tmp_path / "ultralytics").mkdir()
    if source == "a package":
        (tmp_path / "ultralytics" / "__init__.py").write_text("")
    code = """
import importlib.metadata, json, sys
real = importlib.metadata.version
def version(name):
    if name == "ultralytics":
        raise importlib.metadata.PackageNotFoundError(name)
    return real(name)
importlib.metadata.version = version
from yolo_edgequant.runtime import Detector
import yolo_edgequant
try:
    yolo_edgequant.enable()
except yolo_edgequant.EdgeQuantError as error:
    print(json.dumps([Detector.__name__, type(error).__name__, "torch" in sys.modules]))
"""
    said, _ = python(code, tmp_path, tmp_path)
    assert said == ["Detector", "MissingToolError", False]


INSTALLED = Path(importlib.util.find_spec("ultralytics").origin).parent


@pytest.fixture
def copy(tmp_path):
    """Make a folder that goes in front of the import path and holds the installed Ultralytics, changed."""

    def changed(version=None, replaced=(), removed=()):
        """Replace texts in all files, remove files, and give it another version."""
        folder = tmp_path / "front"
        package = shutil.copytree(INSTALLED, folder / "ultralytics", ignore=shutil.ignore_patterns("assets", "__pyc*"))
        for name in removed:
            (package / name).unlink()
        changes = 0
        for file in package.rglob("*.py"):
            source = text = file.read_text()
            for old, new in replaced:
                text = text.replace(old, new)
            if text != source:
                file.write_text(text)
                changes += 1
        assert changes or not replaced, "nothing was changed"
        if version is not None:
            init = package / "__init__.py"
            init.write_text(init.read_text().replace('__version__ = "8.4.190"', f'__version__ = "{version}"'))
            assert version in init.read_text()
            called(folder, version)
        return folder

    return changed


TFLITE = {"litert", "tflite", "edgetpu", "saved_model"}
#: What a release may do: the changes, what is then said to be missing, the formats that are refused, and what else.
CHANGES = {
    "an attribute is renamed": (
        {"replaced": [("_get_decode_boxes", "_decoded_boxes")]},
        "ultralytics.nn.modules has no Detect._get_decode_boxes",
        set(PROFILES),
        {FINETUNING},
    ),
    "a class is renamed": (
        {"replaced": [("WorldDetect", "DetectWorld")]},
        "ultralytics.nn.modules has no WorldDetect",
        set(PROFILES),
        {FINETUNING, TRAINING},
    ),
    "a parameter is renamed": (
        {"replaced": [('dataloader(self, prefix=""):', 'dataloader(self, title=""):\n        prefix = title')]},
        "ultralytics.engine.exporter.Exporter.get_int8_calibration_dataloader has no parameter prefix",
        set(PROFILES),
        set(),
    ),
    "a parameter of the Edge TPU's compilation is renamed": (
        {"replaced": [("tflite_file", "path_of_tflite")]},
        "ultralytics.utils.export.tensorflow.tflite2edgetpu has no parameter tflite_file",
        {"litert", "tflite", "edgetpu", "openvino"},
        set(),
    ),
    "a module is removed": (
        {
            "replaced": [
                ("from .litert import LiteRTBackend\n", ""),
                ('    "LiteRTBackend",\n', ""),
                ("    LiteRTBackend,\n", ""),
                ('        "litert": LiteRTBackend,\n', ""),
            ],
            "removed": ["nn/backends/litert.py"],
        },
        "there is no module ultralytics.nn.backends.litert",
        TFLITE,
        set(),
    ),
}

LOOKED_AT = """
import json, sys
import yolo_edgequant
from yolo_edgequant.patches import REGISTRY
refused = {}
for purpose in json.loads(sys.argv[1]):
    try:
        REGISTRY.require(purpose, purpose)
    except yolo_edgequant.EdgeQuantError as error:
        refused[purpose] = str(error)
print(json.dumps([refused, "ultralytics" in sys.modules]))
"""


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_changed_ultralytics_lacks_is_known_before_it_is_imported(copy, tmp_path, change):
    changes, clause, formats, others = CHANGES[change]
    code = LOOKED_AT.replace("sys.argv[1]", repr(json.dumps([*PROFILES, TRAINING, FINETUNING])))
    (refused, imported), noise = python(code, tmp_path, copy(**changes), YOLO_EDGEQUANT_FORCE="")
    assert set(refused) == formats | others
    assert all(f": {clause}, which yolo_edgequant needs; " in message for message in refused.values())
    assert not imported
    assert noise == ""


BESIDE = """
import json, shutil
from pathlib import Path
import yolo_edgequant
from yolo_edgequant.demo.train import WEIGHTS
from yolo_edgequant.targets.formats import PROFILES
from ultralytics import YOLO

def ends(name):
    try:
        return model.export(format=name, quantize=8, data="missing.yaml", imgsz=64)
    except Exception as error:
        return [type(error).__name__, str(error)]

model = YOLO(shutil.copy(WEIGHTS, "."))
ours = {name: ends(name) for name in PROFILES}
before = sorted(str(path) for path in Path().iterdir())
file = model.export(format="torchscript", imgsz=64)
print(json.dumps([ours, before, Path(file).name, YOLO(file, task="detect")("x.png", imgsz=64)[0].orig_shape]))
"""


@pytest.mark.export
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_ultralytics_refuses_what_needs_the_change_and_does_the_rest(copy, tmp_path, change):
    import cv2
    import numpy as np

    changes, clause, formats, _ = CHANGES[change]
    front, work = copy(**changes), tmp_path / "work"
    work.mkdir()
    cv2.imwrite(str(work / "x.png"), np.zeros((50, 40, 3), np.uint8))
    (ours, before, file, shape), _ = python(BESIDE, work, front, YOLO_EDGEQUANT_FORCE="")
    for name, (error, message) in ours.items():
        if name in formats:
            assert error == "UnsupportedVersionError"
            assert message.startswith(f"format='{name}'")
            assert f" is not possible with ultralytics 8.4.190: {clause}, which yolo_edgequant needs" in message
            assert "\n" not in message
        else:
            assert error == "DataError", "which comes after everything else"
    assert before == ["shapes.pt", "x.png"], "before any work"
    assert (file, shape) == ("shapes.torchscript", [50, 40])


NEWER = """
import json, shutil
from pathlib import Path
import yolo_edgequant
from yolo_edgequant.demo.dataset import data_set
from yolo_edgequant.demo.train import WEIGHTS
import ultralytics
model = ultralytics.YOLO(shutil.copy(WEIGHTS, "."))
data = data_set(Path("data").resolve(), 16, 2, 160, seed=3)
model.export(format="torchscript", imgsz=64)
print("-" * 20, flush=True)
file = model.export(format="openvino", quantize=8, head="raw", verify=False, data=data, split="train", imgsz=160)
found = len(ultralytics.YOLO(file, task="detect")(next(Path("data/images/val").iterdir()), imgsz=160)[0])
print(json.dumps([ultralytics.__version__, "verified" in Path(file, "metadata.yaml").read_text(), found]))
"""


@pytest.mark.export
@pytest.mark.parametrize("version", ["8.4.191", "8.5.0"])
def test_a_newer_ultralytics_exports_with_one_notice_and_the_self_check(copy, tmp_path, version):
    done = subprocess.run(
        [sys.executable, "-c", NEWER],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (copy(version), ROOT))), "YOLO_EDGEQUANT_FORCE": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    notice = f"ultralytics {version} is not among those that yolo_edgequant was tested with ({TESTED})"
    (place,) = [index for index, line in enumerate(lines) if notice in line]
    assert place > lines.index("-" * 20), "not at an export that is upstream's own"
    seen, verified, found = json.loads(lines[-1])
    assert (seen, verified) == (version, True)
    assert found > 0


def extras():
    """The extras of pyproject.toml, each a list of requirements."""
    tomllib = pytest.importorskip("tomllib")  # not in Python 3.10
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {name: [Requirement(text) for text in lines] for name, lines in project["optional-dependencies"].items()}


def test_the_extras_ask_for_the_oldest_ultralytics_that_was_tested_and_refuse_none_that_came_later():
    asked = {name: r.specifier for name, lines in extras().items() for r in lines if r.name == "ultralytics"}
    assert set(asked) == {"litert", "openvino"}
    (oldest,) = [specifier.version for specifier in SpecifierSet(TESTED) if specifier.operator == ">="]
    assert set(asked.values()) == {SpecifierSet(f">={oldest}")}


def test_the_installed_ultralytics_is_the_newest_that_was_tested():
    """These tests are of it; a new release is tried, and then the range says so."""
    assert REGISTRY.is_tested
    assert REGISTRY.version in SpecifierSet(TESTED)


NEEDS = sorted({need for patch in REGISTRY._for_version() for need in patch.all_needs})


@pytest.mark.parametrize("need", NEEDS)
def test_every_need_is_in_the_installed_ultralytics(need):
    assert missing(need) is None


def test_no_patch_lacks_anything_of_the_installed_ultralytics():
    assert REGISTRY.problems == {}


def of_every_module():
    """Each module of ours: its file's folder, and its statements that run when it is imported."""
    modules = {}
    for file in sorted((ROOT / "yolo_edgequant").rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        modules[name] = file.relative_to(ROOT).parent.parts, list(run_at_import(ast.parse(file.read_text()).body))
    return modules


def run_at_import(body):
    """The statements of a module, without those for type checkers."""
    for statement in body:
        if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            continue
        yield statement
        for part in ("body", "orelse", "finalbody"):
            if isinstance(statement, (ast.If, ast.Try, ast.With)):
                yield from run_at_import(getattr(statement, part, []))


MODULES = of_every_module()


def imports(module):
    """What a module imports when it is imported: modules of ours, and names of Ultralytics as needs."""
    folder, statements = MODULES[module]
    ours, needs = set(), set()
    for statement in statements:
        if isinstance(statement, ast.Import):
            needs |= {alias.name for alias in statement.names if alias.name.partition(".")[0] == "ultralytics"}
        if not isinstance(statement, ast.ImportFrom):
            continue
        base = folder[: len(folder) - statement.level + 1] if statement.level else ()
        source = ".".join([*base, *([statement.module] if statement.module else [])])
        for alias in statement.names:
            if source.partition(".")[0] == "ultralytics":
                needs.add(f"{source}:{alias.name}")
            ours |= {source, f"{source}.{alias.name}"} & MODULES.keys()
    return ours, needs


def needs_of(module):
    """What the import of a module needs of Ultralytics, through all that it imports of ours."""
    todo, modules, needs = {module}, set(), set()
    while todo:
        modules.add(one := todo.pop())
        ours, direct = imports(one)
        todo |= ours - modules
        needs |= direct
    return needs


def stated(patches):
    """What patches state as needs: of an attribute its class, too, and of whatever is in a module that module."""
    needs = {need.partition("(")[0] for patch in patches for need in patch.all_needs}
    modules = {need.partition(":")[0] for need in needs}
    classes = {need.rpartition(".")[0] for need in needs if "." in need.partition(":")[2]}
    return needs | classes | {":".join(module.rsplit(".", 1)) for module in modules}


def test_the_imports_are_read_at_all():
    assert "ultralytics.nn.modules:Detect" in needs_of("yolo_edgequant.patches.exporter")
    assert "ultralytics.nn.modules:Detect" not in imports("yolo_edgequant.patches.exporter")[1]
    assert needs_of("yolo_edgequant") == needs_of("yolo_edgequant.runtime") == set()


@pytest.mark.parametrize("patch", REGISTRY.patches, ids=lambda patch: patch.target)
def test_a_patch_states_what_the_import_of_its_replacement_needs(patch):
    """It is applied where its own needs are there, and its replacement is imported by calls that are upstream's own."""
    assert sorted(needs_of(patch.replacement.partition(":")[0]) - stated([patch])) == []


@pytest.mark.parametrize(
    ("module", "purpose"),
    [
        *(("yolo_edgequant.patches.exporter", name) for name in PROFILES),
        *(("yolo_edgequant.patches.litert", name) for name in ("litert", "tflite", "edgetpu")),
        ("yolo_edgequant.patches.openvino", "openvino"),
        ("yolo_edgequant.patches.training", TRAINING),
        ("yolo_edgequant.finetuning", FINETUNING),
    ],
)
def test_what_is_imported_behind_a_refusal_is_stated_by_the_patches_that_it_looks_at(module, purpose):
    assert needs_of(module)
    assert sorted(needs_of(module) - stated([patch for patch in REGISTRY.patches if purpose in patch.serves])) == []


def test_all_that_is_imported_of_ultralytics_is_stated_as_a_need():
    needs = {need for module in MODULES for need in imports(module)[1]}
    assert len(needs) > 30
    assert sorted(needs - stated(REGISTRY.patches)) == []


def attributes_of(owner):
    """What the patches read and write of the parameters that they declare to be of a class of Ultralytics'."""
    for file in sorted((ROOT / "yolo_edgequant" / "patches").glob("*.py")):
        for function in ast.walk(ast.parse(file.read_text())):
            if not isinstance(function, ast.FunctionDef):
                continue
            names = {arg.arg for arg in function.args.args if arg.annotation and ast.unparse(arg.annotation) == owner}
            for node in ast.walk(function):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names:
                    yield node.attr


@pytest.mark.parametrize(
    ("owner", "least"), [("Exporter", 7), ("LiteRTBackend", 1), ("TensorFlowBackend", 1), ("DistillationModel", 5)]
)
def test_every_attribute_of_ultralytics_classes_that_a_patch_touches_is_stated(owner, least):
    used = {name for name in attributes_of(owner) if not name.startswith("edgequant")}
    names = {need.partition(":")[2].partition("(")[0] for patch in REGISTRY.patches for need in patch.all_needs}
    assert len(used) >= least
    assert sorted(used - {name.removeprefix(f"{owner}.") for name in names} - {"training"}) == []


def targets():
    """What stands at the place of each patched function, by module, and name."""
    return {
        (patch.module, patch.target): REGISTRY._target(patch, importlib.import_module(patch.module))[1]
        for patch in REGISTRY._applicable()
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


def test_every_patch_that_is_for_the_installed_version_is_applied():
    applied = REGISTRY._applicable()
    assert applied == REGISTRY._for_version()
    assert len(applied) > 12
    assert all(patch.until for patch in REGISTRY.patches if patch not in applied), "nothing waits for a later release"


def test_finetune_is_refused_where_something_is_missing(monkeypatch):
    (patch,) = [patch for patch in REGISTRY.patches if patch.target == "parse_model"]
    monkeypatch.setitem(vars(REGISTRY), "problems", {patch: "ultralytics.x has no y"})
    monkeypatch.setattr(REGISTRY, "_forced", False)
    with pytest.raises(
        UnsupportedVersionError, match=r"^finetune\(\) is not possible with .*: ultralytics\.x has no y"
    ):
        yolo_edgequant.finetune("x.pt", "x.yaml")


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
