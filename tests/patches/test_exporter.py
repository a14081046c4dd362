"""The export call: whose it is, what reaches it, what it prints, and that all others stay upstream's."""

import shlex
import subprocess
import sys
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ultralytics import YOLO
from ultralytics.utils import LOGGER as UPSTREAM

import yolo_edgequant
from yolo_edgequant.contract import read
from yolo_edgequant.demo.train import WEIGHTS
from yolo_edgequant.errors import OptionError
from yolo_edgequant.log import LOGGER
from yolo_edgequant.patches import exporter, litert
from yolo_edgequant.patches.exporter import job_of
from yolo_edgequant.processes import environment
from yolo_edgequant.targets.devices import device
from yolo_edgequant.tflite.graph import Graph


def test_an_unknown_argument_is_still_upstreams_error(shapes_model, shapes_data):
    with pytest.raises(SyntaxError, match="haed"):
        YOLO(shapes_model).export(format="tflite", quantize=8, data=shapes_data, haed="float")


def test_disabled_there_are_no_options(shapes_model):
    yolo_edgequant.disable()
    with pytest.raises(SyntaxError, match="granularity"):
        YOLO(shapes_model).export(format="litert", granularity="tensor")


def test_options_reach_the_export_from_the_call_the_context_and_the_thread(monkeypatch, shapes_model, shapes_data):
    seen = {}

    def build_of(self, *_):
        seen[threading.current_thread().name] = job_of(self).request
        raise RuntimeError("seen")

    def export(**options):
        with pytest.raises(RuntimeError, match="seen"):
            YOLO(shapes_model).export(format="tflite", quantize=8, data=shapes_data, imgsz=160, **options)
        return seen[threading.current_thread().name]

    monkeypatch.setattr(litert, "build_of", build_of)
    assert export().head == "int8"
    assert export(head="float", granularity="tensor").granularity == "tensor"
    with yolo_edgequant.options(head="float", io="uint8"):
        assert (export().head, export().io) == ("float", "uint8")
        assert export(head="int8").head == "int8"
        threads = [
            threading.Thread(name=head, target=export, kwargs={"head": head, "ranges": ranges})
            for head, ranges in (("int8", "minmax"), ("float", "activation"))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (seen["int8"].head, seen["int8"].ranges, seen["int8"].io) == ("int8", "minmax", "int8")
    assert (seen["float"].head, seen["float"].ranges, seen["float"].io) == ("float", "activation", "float")
    assert export().head == "int8", "after exports that raised"


@pytest.mark.parametrize(
    ("target", "arguments", "added"),
    [
        ("nxp-imx8mp", {}, {"format": "tflite", "quantize": 8}),
        ("nxp-imx8mp", {"format": None, "quantize": None}, {"format": "tflite", "quantize": 8}),
        ("coral-edgetpu", {"format": "tflite"}, {"quantize": 8}),
        ("coral-edgetpu", {"quantize": 8}, {"format": "edgetpu"}),
        ("intel-cpu", {"int8": True, "half": False}, {"format": "openvino"}),
        ("intel-cpu", {"half": True}, {"format": "openvino"}),  # and refused behind it
        ("intel-cpu", {"format": "openvino", "quantize": "int8"}, {}),
    ],
)
def test_a_target_brings_its_format_and_int8_where_they_are_left_open(target, arguments, added):
    assert exporter.for_target(arguments, device(target)) == added


def test_a_target_reaches_the_export_with_what_its_profile_chooses(monkeypatch, shapes_model, shapes_data):
    requests = []

    def build_of(self, *_):
        requests.append(job_of(self).request)
        raise RuntimeError("far enough")

    def request(**options):
        with pytest.raises(RuntimeError, match="far enough"):
            YOLO(shapes_model).export(data=shapes_data, imgsz=160, **options)
        one = requests.pop()
        return (one.target, one.profile.format, one.head, one.outputs, one.granularity, one.io)

    monkeypatch.setattr(litert, "build_of", build_of)
    expected = ("nxp-imx8mp", "tflite", "raw", "grid", "channel", "int8")
    assert request(target="nxp-imx8mp") == expected
    with yolo_edgequant.options(target="nxp-imx8mp"):
        assert request() == expected
        assert request(target="nxp-imx95") == ("nxp-imx95", "tflite", "raw", "grid", "tensor", "int8")
    assert request(target="nxp-imx8mp", head="int8", granularity="tensor", io="uint8") == (
        *("nxp-imx8mp", "tflite", "int8", "separate", "tensor", "uint8"),
    )
    assert request(target="raspberrypi", format="tflite")[:3] == ("raspberrypi", "tflite", "float")
    assert request(format="tflite", quantize=8)[0] is None


def test_a_target_is_for_int8(shapes_model):
    with pytest.raises(OptionError, match="target='intel-cpu' needs quantize=8 and one of the formats"):
        YOLO(shapes_model).export(target="intel-cpu", quantize=16, imgsz=160)


def test_an_export_of_upstreams_reaches_upstreams_converter(monkeypatch, shapes_model):
    def torch2litert(*_, **__):
        raise RuntimeError("upstream's")

    monkeypatch.setattr("ultralytics.utils.export.litert.torch2litert", torch2litert)
    for quantize in (None, "w8a32"):
        with pytest.raises(RuntimeError, match="upstream's"):
            YOLO(shapes_model).export(format="litert", quantize=quantize, imgsz=160)


@pytest.fixture
def locked(monkeypatch):
    """Make the lock of our exports one that nobody gets."""

    class Held:
        def __enter__(self):
            raise AssertionError("the lock was asked for")

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(exporter, "_one_at_a_time", Held())


@pytest.mark.export
def test_exports_that_are_not_ours_take_no_lock(locked, shapes_model, shapes_data):
    for arguments in ({"format": "torchscript"}, {"format": "openvino", "quantize": 16}):
        assert Path(YOLO(shapes_model).export(imgsz=64, **arguments)).exists()
    with pytest.raises(AssertionError, match="lock was asked for"):
        YOLO(shapes_model).export(format="tflite", quantize=8, data=shapes_data, imgsz=64)


LINES = ("box decoding: ", "bias correction (weights per channel): ")


@pytest.mark.export
def test_what_was_done_reaches_ultralytics_handlers_and_verbose_false_silences_it(
    export, shapes_model, shapes_data, logged
):
    arguments = {"format": "tflite", "head": "float"}
    export(shapes_model, shapes_data, **arguments)
    for start in LINES:
        assert [line for line in logged if line.startswith(start)], start
    decoding = next(line for line in logged if line.startswith(LINES[0]))
    assert decoding.endswith("operations in float")
    assert any(line.startswith("self-check on 3 images held back: ") for line in logged)
    logged.clear()
    export(shapes_model, shapes_data, verbose=False, **arguments)
    assert not [line for line in logged if line.startswith((*LINES, "self-check"))]
    assert any("fewer than 100 give poor ranges" in line for line in logged), "a warning stays"
    assert LOGGER.parent is UPSTREAM
    assert LOGGER.isEnabledFor(20), "loud again"


@pytest.mark.export
@pytest.mark.parametrize(
    ("format", "options", "command"),
    [
        ("tflite", {}, "yolo"),
        ("tflite", {"head": "raw"}, "yolo-edgequant"),
        ("openvino", {"head": "raw"}, "yolo-edgequant"),
    ],
)
def test_the_command_that_an_export_prints_detects(
    export, shapes_model, shapes_data, logged, tmp_path, format, options, command
):
    """Run as printed, in a process of its own, for an image."""
    export(shapes_model, shapes_data, format=format, **options)
    predict, validate = (
        next(line for line in "\n".join(logged).splitlines() if line.startswith(start)).partition(":")[2].split()
        for start in ("Predict:", "Validate:")
    )
    assert predict[:3] == [command, "predict", "task=detect"]
    assert validate[:3] == [command, "val", "task=detect"]
    program = {
        "yolo": "from ultralytics.cfg import entrypoint; entrypoint()",
        "yolo-edgequant": "from yolo_edgequant.cli import main; main()",
    }[command]
    image = min((shapes_data.parent / "images/val").glob("*.png"))
    done = subprocess.run(
        [sys.executable, "-c", program, *predict[1:], f"source={image}", "save=False"],
        cwd=tmp_path,
        env=environment(YOLO_CONFIG_DIR=str(tmp_path)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{shlex.join(predict)}: {done.stderr[-500:]}"
    expected = YOLO(WEIGHTS)(image, imgsz=160, conf=0.5, verbose=False)[0]
    for name in {expected.names[int(kind)] for kind in expected.boxes.cls}:
        assert name in done.stdout, done.stdout


@pytest.mark.export
def test_several_threads_export_at_once(tmp_path, shapes_model, shapes_data):
    def work(head):
        folder = tmp_path / head
        folder.mkdir()
        model = folder / "shapes.pt"
        model.write_bytes(shapes_model.read_bytes())
        settings = {"quantize": 8, "data": shapes_data, "split": "train", "imgsz": 160}
        return Path(YOLO(model).export(format="tflite", head=head, **settings))

    with ThreadPoolExecutor(2) as pool:
        files = list(pool.map(work, ["int8", "float"]))
    graphs = [Graph(path.read_bytes()) for path in files]
    assert [graph.dtype(graph.outputs[0]) for graph in graphs] == ["INT8", "FLOAT32"]
    assert [read(path).head for path in files] == ["int8", "float"]


NOT_OURS = """
import datetime as time, shutil, sys, zipfile
import yolo_edgequant
from ultralytics import YOLO
from ultralytics.engine import exporter

class Frozen(time.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2026, 1, 1, tzinfo=time.UTC)

exporter.datetime = Frozen
zipfile.time.time = lambda: 1767225600.0
if sys.argv[1] == "without":
    yolo_edgequant.disable()
for format in ("torchscript", "onnx", "openvino", "litert"):
    YOLO("shapes.pt").export(format=format, imgsz=160)
YOLO(shutil.copy("shapes.pt", "half.pt")).export(format="openvino", quantize=16, imgsz=160)
"""


def parts(torchscript):
    """All in a TorchScript file but the call stacks of its tracing, which name every caller's source line."""
    with zipfile.ZipFile(torchscript) as archive:
        varying = (".debug_pkl", ".data/serialization_id")
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith(varying)}


@pytest.mark.export
def test_files_that_are_not_ours_are_byte_for_byte_upstreams(shapes_model):
    """FP32 of four formats, and FP16."""
    contents = []
    for state in ("with", "without"):  # processes of their own: names in the files are numbered
        subprocess.run([sys.executable, "-c", NOT_OURS, state], cwd=shapes_model.parent, env=environment(), check=True)
        files = [p for p in sorted(shapes_model.parent.rglob("*")) if p.is_file() and p.suffix != ".pt"]
        contents.append(
            {
                str(p.relative_to(shapes_model.parent)): parts(p) if p.suffix == ".torchscript" else p.read_bytes()
                for p in files
            }
        )
        for path in files:
            path.unlink()
    assert {Path(name).suffix for name in contents[0]} == {".torchscript", ".onnx", ".xml", ".bin", ".yaml", ".tflite"}
    assert len([name for name in contents[0] if name.endswith(".bin")]) == 2
    assert contents[0] == contents[1]
