import importlib.util
import json
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from types import SimpleNamespace

import pytest
from rich.console import Console

from yolo_edgequant import doctor
from yolo_edgequant.errors import OptionError
from yolo_edgequant.patches import FINETUNING, REGISTRY, TRAINING
from yolo_edgequant.patching import Registry
from yolo_edgequant.processes import environment
from yolo_edgequant.targets.formats import PROFILES

#: The newest that was tried, by distribution.
INSTALLED = {
    "ultralytics": "8.4.190",
    "torch": "2.14.1+cpu",
    "numpy": "2.4.6",
    "litert-torch": "0.10.0",
    "litert-converter": "0.5.0",
    "ai-edge-litert": "2.3.0",
    "ai-edge-quantizer": "0.10.0",
    "tensorflow": "2.21.0",
    "tf-keras": "2.21.0",
    "onnx2tf": "1.28.8",
    "onnx-graphsurgeon": "0.6.1",
    "onnx": "1.23.2",
    "onnxruntime": "1.32.0",
    "onnxslim": "0.1.98",
    "openvino": "2026.4.1",
    "nncf": "3.4.0",
    "opencv-python": "5.0.0.93",
}
REQUIRES = {
    "yolo-edgequant": [
        "numpy>=1.26",
        'ultralytics>=8.4; extra == "litert"',
        *(f'{name}; extra == "litert"' for name in ("litert_torch<0.11,>=0.10", "ai-edge-litert<2.4,>=2.3")),
        'onnx2tf<1.29,>=1.28.8; extra == "tensorflow"',
        'opencv-python>=4.6; extra == "run"',
        'nncf<4,>=3.4; extra == "openvino" and python_version > "3"',
        'openvino>=2027; extra == "openvino" and python_version < "3"',
    ],
    "litert-torch": ["torch<2.15.0,>=2.4.0", "litert-converter==0.5.*", "ai-edge-litert==2.0", "scipy"],
    "ultralytics": ["torch>=1.8.0", "torch!=2.14.1; sys_platform == 'none'", 'torch<2; extra == "export"'],
}
EXTRAS = {"yolo-edgequant": ["litert", "tensorflow", "openvino", "run"], "ultralytics": ["export"]}
TFLITE = [name for name, profile in PROFILES.items() if profile.is_tflite]


class World:
    """What seems to be installed; tests change it, and then look."""

    def __init__(self):
        self.versions = dict(INSTALLED)
        self.modules = {"cv2" if name == "opencv-python" else name.replace("-", "_") for name in INSTALLED}
        self.problems = {}
        self.registry = Registry(REGISTRY.distribution, REGISTRY.patches, ">=8.4.31,<=8.4.190", REGISTRY.override)

    def remove(self, *names):
        for name in names:
            self.versions.pop(name)
            self.modules.discard("cv2" if name == "opencv-python" else name.replace("-", "_"))

    def version(self, name):
        if name.replace("_", "-") not in self.versions:
            raise metadata.PackageNotFoundError(name)
        return self.versions[name.replace("_", "-")]

    def requires(self, name):
        if name != "yolo-edgequant":
            self.version(name)
        return REQUIRES.get(name)

    def extras(self, name):
        return SimpleNamespace(get_all=lambda field: EXTRAS.get(name) if field == "Provides-Extra" else None)

    def report(self):
        if "ultralytics" in self.versions:
            self.registry.problems = self.problems
        return doctor.examine()

    def row(self, name):
        return next(row for row in self.report().rows if row.name == name)

    def purposes(self):
        return {purpose.name: purpose for purpose in self.report().purposes}


@pytest.fixture
def world(monkeypatch, tmp_path):
    world = World()
    monkeypatch.setattr(doctor, "REGISTRY", world.registry)
    monkeypatch.setattr(metadata, "version", world.version)
    monkeypatch.setattr(metadata, "requires", world.requires)
    monkeypatch.setattr(metadata, "metadata", world.extras)
    monkeypatch.setattr(
        metadata, "packages_distributions", lambda: {"cv2": ["opencv-contrib", "opencv-python-headless"]}
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name in world.modules else None)
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    return world


def names(purposes):
    return [purpose.name for purpose in purposes]


def text(report):
    console = Console(width=250)
    with console.capture() as capture:
        console.print(doctor.tables(report))
    return capture.get()


def test_where_all_is_as_tested_all_works_but_what_is_extra(world):
    report = world.report()
    assert {row.name for row in report.rows if row.state != "works"} == {"tflite-runtime", "edgetpu_compiler"}
    assert {row.name for row in report.rows} == {*INSTALLED, "tflite-runtime", "edgetpu_compiler"}
    purposes = ["runtime, .tflite", "runtime, OpenVINO"]
    assert names(report.purposes) == [*PROFILES, TRAINING, FINETUNING, *purposes]
    assert [(p.name, p.reason) for p in report.purposes if p.possible and p.reason] == []
    assert names(p for p in report.purposes if not p.possible) == ["edgetpu"]
    assert report.failing() == [], "without a compiler nobody means edgetpu"
    assert names(report.failing(["edgetpu", "litert"])) == ["edgetpu"]


def test_the_versions_that_were_tested_are_this_packages_own_requirements_then_those_of_others(world):
    rows = {row.name: row for row in world.report().rows}
    assert rows["litert-torch"].tested == ">=0.10,<0.11"
    assert rows["ai-edge-litert"].tested == ">=2.3,<2.4", "ours, where another says something else"
    assert rows["nncf"].tested == ">=3.4,<4"
    assert rows["openvino"].tested == "", "a marker that does not hold here"
    assert rows["numpy"].tested == ">=1.26"
    assert rows["torch"].tested == ">=2.4.0,<2.15.0"
    assert rows["litert-converter"].tested == "==0.5.*"
    assert rows["ultralytics"].tested == world.registry.tested, "what the patches say, not the extras"
    world.remove("litert-torch")
    assert world.row("torch").tested == ">=1.8.0"


def test_without_metadata_of_its_own_any_version_will_do(world, monkeypatch):
    def requires(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    row = world.row("litert-torch")
    assert (row.tested, row.state) == ("", "works")


@pytest.mark.parametrize(
    ("name", "version", "age", "formats"),
    [
        ("litert-torch", "0.11.0", "newer", TFLITE),
        ("litert-torch", "0.9.0", "older", TFLITE),
        ("litert-converter", "0.6.0", "newer", TFLITE),
        ("litert-converter", "0.4.9", "older", TFLITE),
        ("nncf", "4.0.0rc1", "newer", ["openvino"]),
        ("torch", "2.15.0.dev1+cpu", "newer", list(PROFILES)),
    ],
)
def test_another_version_than_those_tested_differs_and_is_possible(world, name, version, age, formats):
    world.versions[name] = version
    row = world.row(name)
    assert row.state == "differs"
    assert row.advice == f"{age} than tested; if it fails: pip install '{name}{row.tested}'"
    told = {
        purpose.name for purpose in world.purposes().values() if f"not tested with {name} {version}" in purpose.reason
    }
    assert told & set(PROFILES) == set(formats) - {"edgetpu"}, "edgetpu lacks its compiler"
    assert world.report().failing() == []


def test_a_release_candidate_inside_the_tested_range_works(world):
    world.versions["litert-torch"] = "0.10.1rc1"
    assert world.row("litert-torch").state == "works"


def test_what_is_missing_names_its_extra_and_only_stops_what_needs_it(world):
    world.remove("litert-torch")
    row = world.row("litert-torch")
    assert (row.state, row.version, row.advice) == ("missing", None, "pip install 'yolo-edgequant[litert]'")
    purposes = world.purposes()
    assert [name for name in PROFILES if purposes[name].possible] == ["openvino"]
    assert purposes["litert"].reason == (
        "format='litert' needs litert_torch; install with: pip install 'yolo-edgequant[litert]'"
    )
    report = world.report()
    assert names(report.failing()) == ["saved_model"], "litert is not installed, TensorFlow's packages are"
    assert names(report.failing(["litert", "openvino"])) == ["litert"]


def test_a_package_with_another_extra_names_that(world):
    world.remove("nncf", "onnx2tf", "opencv-python", "torch")
    assert world.row("nncf").advice == "pip install 'yolo-edgequant[openvino]'"
    assert world.row("onnx2tf").advice == "pip install 'yolo-edgequant[tensorflow]'"
    assert "pip install 'yolo-edgequant[run]'" in world.row("opencv-python").advice
    assert world.row("torch").advice == "pip install torch"
    assert world.purposes()["litert"].reason == "torch is missing: pip install torch"
    assert not world.purposes()[FINETUNING].possible


def test_the_converters_part_that_no_format_names_stops_exports_too(world):
    world.remove("litert-converter")
    assert world.row("litert-converter").state == "missing"
    purposes = world.purposes()
    assert [name for name in PROFILES if purposes[name].possible] == ["openvino"]
    assert purposes["tflite"].reason == "litert-converter is missing: pip install litert-converter"
    assert names(world.report().failing()) == ["litert", "tflite", "saved_model"]


def test_metadata_without_a_module_is_broken(world):
    world.modules.remove("nncf")
    row = world.row("nncf")
    assert (row.state, row.version) == ("broken", "3.4.0")
    assert row.advice == "there is no module nncf: pip install --force-reinstall nncf"
    assert names(world.report().failing()) == ["openvino"], "it was installed, so it is meant"


def test_a_module_without_metadata_is_unknown_and_possible(world):
    world.versions.pop("nncf")
    row = world.row("nncf")
    assert (row.state, row.version, row.advice) == ("unknown", None, "nncf can be imported, and has no metadata")
    openvino = world.purposes()["openvino"]
    assert openvino.possible
    assert openvino.reason == "not tested with nncf"


def test_a_module_of_another_distribution_is_known_by_that(world):
    world.versions["opencv-python-headless"] = world.versions.pop("opencv-python")
    row = world.row("opencv-python-headless")
    assert (row.module, row.version, row.tested, row.state) == ("cv2", "5.0.0.93", ">=4.6", "works")


@pytest.mark.parametrize(
    ("numpy", "others", "state", "possible"),
    [
        ("1.26.4", False, "works", True),
        ("2.0.0", False, "broken", False),
        ("2.4.6", False, "broken", False),
        ("2.4.6", True, "broken", True),
    ],
)
def test_tflite_runtime_needs_numpy_1(world, numpy, others, state, possible):
    if not others:
        world.remove("ai-edge-litert")
    world.versions |= {"tflite-runtime": "2.14.0", "numpy": numpy}
    world.modules.add("tflite_runtime")
    row = world.row("tflite-runtime")
    assert (row.state, row.tested) == (state, "")
    assert row.advice == ("" if state == "works" else f"fails with NumPy {numpy}: pip install 'numpy<2'")
    assert world.purposes()["runtime, .tflite"].possible == possible


def test_the_interpreters_are_those_of_the_runtime_in_its_order():
    from yolo_edgequant.runtime import interpreter

    assert tuple(name.partition(".")[0] for name in interpreter._TFLITE) == doctor._INTERPRETERS


def test_a_device_has_no_ultralytics_and_a_runtime(world):
    world.remove(*(name for name in INSTALLED if name not in {"numpy", "ai-edge-litert"}))
    purposes = world.purposes()
    assert [name for name, purpose in purposes.items() if purpose.possible] == ["runtime, .tflite"]
    assert "ultralytics is not installed" in purposes["openvino"].reason
    assert world.row("ultralytics").state == "missing"
    assert world.report().failing() == []
    assert names(world.report().failing(["openvino"])) == ["openvino"]
    world.remove("ai-edge-litert")
    assert names(world.report().failing()) == ["runtime, .tflite", "runtime, OpenVINO"]
    assert world.purposes()["runtime, .tflite"].reason == "no interpreter: pip install 'yolo-edgequant[runtime]'"


def test_openvino_alone_is_for_inference(world):
    world.remove(*(name for name in INSTALLED if name not in {"numpy", "openvino"}))
    assert [name for name, purpose in world.purposes().items() if purpose.possible] == ["runtime, OpenVINO"]
    assert world.report().failing() == []


def test_what_ultralytics_lacks_has_a_row_and_stops_what_it_serves(world):
    patch = next(patch for patch in REGISTRY.patches if patch.serves == ("openvino",))
    world.problems = {patch: "ultralytics.utils has no LOGGER"}
    report = world.report()
    row = next(row for row in report.rows if row.name == patch.target)
    assert row.state == "missing"
    assert row.advice == (
        "ultralytics.utils has no LOGGER; without it no openvino; pip install 'ultralytics>=8.4.31,<=8.4.190'"
    )
    assert names(report.failing()) == ["openvino"]
    purposes = {purpose.name: purpose for purpose in report.purposes}
    assert "ultralytics.utils has no LOGGER" in purposes["openvino"].reason
    assert purposes["litert"].possible


def test_what_training_lacks(world):
    patch = next(patch for patch in REGISTRY.patches if patch.serves == (FINETUNING,))
    world.problems = {patch: "there is no module ultralytics.nn.tasks"}
    purposes = world.purposes()
    assert purposes[TRAINING].possible
    assert not purposes[FINETUNING].possible
    assert "there is no module ultralytics.nn.tasks" in purposes[FINETUNING].reason


def test_a_convenience_that_lacks_something_stops_nothing(world):
    patch = next(patch for patch in REGISTRY.patches if not patch.serves)
    world.problems = {patch: "it is gone"}
    assert "it is gone; nothing else is lost; pip" in world.row(patch.target).advice
    assert world.report().failing() == []


@pytest.mark.parametrize(("version", "age"), [("8.4.191", "newer"), ("8.5.0", "newer"), ("8.3.253", "older")])
def test_another_ultralytics_that_has_all_that_is_needed(world, version, age):
    world.versions["ultralytics"] = version
    row = world.row("ultralytics")
    assert row.state == "differs"
    assert row.advice == (
        f"all that is needed is there; {age} than tested; if it fails: pip install 'ultralytics>=8.4.31,<=8.4.190'"
    )
    assert world.purposes()["litert"].reason == f"not tested with ultralytics {version}"
    world.problems = {REGISTRY.patches[0]: "something"}
    assert "all that is needed" not in world.row("ultralytics").advice


@pytest.mark.parametrize(("system", "machine"), [("Linux", "aarch64"), ("Windows", "AMD64"), ("Darwin", "x86_64")])
def test_a_platform_without_the_converter_is_said_to_be_one(world, monkeypatch, system, machine):
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    world.remove("litert-torch", "litert-converter")
    for name in ("litert-torch", "litert-converter"):
        assert "wheels for Linux x86-64 and macOS arm64 alone" in world.row(name).advice
        assert "pip" not in world.row(name).advice
    assert world.row("nncf").state == "works"
    purposes = world.purposes()
    assert [name for name in PROFILES if purposes[name].possible] == ["openvino"]
    assert all("alone, not for" in purposes[name].reason for name in TFLITE)


@pytest.mark.parametrize("place", ["Ultralytics/edgetpu-compiler/usr/bin/edgetpu_compiler_bin", "edgetpu-compiler"])
def test_the_compiler_that_ultralytics_keeps_counts(world, tmp_path, place):
    (tmp_path / place / "edgetpu_compiler").mkdir(parents=True)
    assert world.row("edgetpu_compiler").state == "missing", "a folder is no program"
    (tmp_path / place / "edgetpu_compiler").rmdir()
    (tmp_path / place / "edgetpu_compiler").touch()
    assert world.row("edgetpu_compiler").state == "works"
    assert world.purposes()["edgetpu"].possible


@pytest.mark.parametrize("variable", ["XDG_CONFIG_HOME", "HOME"])
def test_where_ultralytics_keeps_it_follows_its_environment(world, tmp_path, monkeypatch, variable):
    monkeypatch.delenv("YOLO_CONFIG_DIR")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    folder = tmp_path / (".config" if variable == "HOME" else "") / "Ultralytics" / "edgetpu-compiler"
    folder.mkdir(parents=True)
    (folder / "edgetpu_compiler").touch()
    assert world.row("edgetpu_compiler").state == "works"


def test_a_compiler_on_path_makes_edgetpu_meant(world, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert world.purposes()["edgetpu"].possible
    world.remove("ai-edge-quantizer")
    assert names(world.report().failing()) == ["litert", "tflite", "edgetpu", "saved_model"]


def test_an_unknown_format_is_refused(world):
    with pytest.raises(OptionError, match=r"^--format 'onnx' is not one of litert, tflite, edgetpu"):
        world.report().failing(["litert", "onnx"])


@pytest.mark.parametrize("features", [("avx2", "amx_int8"), ()])
def test_the_cpus_features(world, monkeypatch, features):
    monkeypatch.setattr(doctor, "cpu_features", lambda: features)
    report = world.report()
    assert report.cpu == features
    assert f", CPU: {' '.join(features) or 'features unknown'}\n" in text(report)


def test_the_tables_say_it_with_square_brackets_as_they_are(world):
    world.remove("nncf", "litert-converter")
    world.versions["litert-torch"] = "0.11.0"
    lines = text(world.report()).splitlines()
    cells = [[cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│")] for line in lines]
    assert lines[0].startswith(f"yolo-edgequant {doctor.__version__}, Python {platform.python_version()}, ")
    assert ["package", "version", "tested", "state", "what to do"] in cells
    assert ["nncf", "-", ">=3.4,<4", "missing", "pip install 'yolo-edgequant[openvino]'"] in cells
    advice = "newer than tested; if it fails: pip install 'litert-torch>=0.10,<0.11'"
    assert ["litert-torch", "0.11.0", ">=0.10,<0.11", "differs", advice] in cells
    assert ["litert", "no", "litert-converter is missing: pip install litert-converter"] in cells
    assert ["runtime, OpenVINO", "yes", ""] in cells


def test_the_json_holds_all_of_it(world, tmp_path):
    world.remove("nncf")
    report = world.report()
    doctor.save(report, tmp_path / "new" / "doctor.json")
    values = json.loads((tmp_path / "new" / "doctor.json").read_text())
    assert list(values) == ["version", "python", "platform", "cpu", "rows", "purposes"]
    assert {row["name"]: row["state"] for row in values["rows"]} == {row.name: row.state for row in report.rows}
    assert next(row for row in values["rows"] if row["name"] == "nncf") == {
        "name": "nncf",
        "module": "nncf",
        "version": None,
        "tested": ">=3.4,<4",
        "state": "missing",
        "advice": "pip install 'yolo-edgequant[openvino]'",
    }
    assert {purpose["name"]: purpose["possible"] for purpose in values["purposes"]}["openvino"] is False


def test_the_environment_of_the_tests_can_export_and_is_examined_without_importing_it(tmp_path):
    code = """
import sys
from yolo_edgequant.cli import main
try:
    main()
finally:
    print(sorted({"torch", "ultralytics", "tensorflow", "openvino", "litert_torch"} & set(sys.modules)))
"""
    arguments = ("doctor", "--format", "litert", "--format", "openvino", "--json", "doctor.json")
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-2:] == ["written: doctor.json", "[]"]
    values = json.loads((tmp_path / "doctor.json").read_text())
    versions = {row["name"]: row["version"] for row in values["rows"]}
    assert versions["ultralytics"] == metadata.version("ultralytics")
    assert versions["litert-torch"] == metadata.version("litert-torch")
