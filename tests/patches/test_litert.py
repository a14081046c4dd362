import shutil
import stat
import subprocess
import sys
import textwrap
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from torch import nn
from ultralytics import YOLO
from ultralytics.nn.backends.base import BaseBackend

import yolo_edgequant
from yolo_edgequant.demo.train import WEIGHTS
from yolo_edgequant.errors import CompilerError, MissingToolError
from yolo_edgequant.processes import environment
from yolo_edgequant.tflite.graph import Graph

INTEGER_OPERATORS = {
    "ADD",
    "CONCATENATION",
    "CONV_2D",
    "LOGISTIC",
    "MAX_POOL_2D",
    "MUL",
    "PAD",
    "QUANTIZE",
    "RESHAPE",
    "RESIZE_NEAREST_NEIGHBOR",
    "SLICE",
    "SOFTMAX",
    "SUB",
    "TRANSPOSE",
}


def export(model, data, **arguments):
    return YOLO(model).export(**{"quantize": 8, "data": data, "split": "train", "imgsz": 160, **arguments})


def score(path, data):
    return YOLO(path, task="detect").val(data=data, imgsz=160, batch=1, plots=False, workers=0, rect=False).box.map


@pytest.fixture(scope="module")
def fp32(shapes_data):
    return score(WEIGHTS, shapes_data)


@pytest.fixture(scope="module")
def exported(shapes_data, tmp_path_factory):
    """Files to look at, not to change; the folder of each holds nothing else but the checkpoint."""
    made = {}

    def run(format, **options):
        key = (format, *sorted(options.items()))
        if key not in made:
            model = shutil.copy(WEIGHTS, tmp_path_factory.mktemp("exported"))
            made[key] = Path(export(model, shapes_data, format=format, **options))
        return made[key]

    return run


@pytest.mark.parametrize(
    ("format", "options", "name", "least"),
    [
        ("litert", {}, "shapes_int8.tflite", 0.97),
        ("tflite", {}, "shapes_full_integer_quant.tflite", 0.85),
        ("tflite", {"head": "float", "io": "uint8"}, "shapes_integer_quant.tflite", 0.97),
        (
            "tflite",
            {"granularity": "tensor", "ranges": "minmax", "io": "uint8"},
            "shapes_full_integer_quant.tflite",
            0.75,
        ),
        ("litert", {"head": "raw"}, "shapes_int8.tflite", 0.97),
        ("tflite", {"head": "raw"}, "shapes_full_integer_quant.tflite", 0.97),
        ("tflite", {"head": "raw", "granularity": "tensor", "io": "uint8"}, "shapes_full_integer_quant.tflite", 0.95),
        ("openvino", {}, "shapes_int8_openvino_model", 0.97),
        ("openvino", {"head": "raw"}, "shapes_int8_openvino_model", 0.97),
        ("openvino", {"head": "int8"}, "shapes_int8_openvino_model", 0.85),
    ],
)
def test_exported_files_detect_and_say_what_they_hold(exported, shapes_data, fp32, format, options, name, least):
    made = exported(format, **options)
    assert made.name == name
    assert score(made, shapes_data) > least * fp32
    metadata = BaseBackend.read_metadata(made)
    assert metadata["names"] in (
        {0: "circle", 1: "square", 2: "triangle", 3: "star"},
        {"0": "circle", "1": "square", "2": "triangle", "3": "star"},
    )
    contract = metadata["edgequant"]
    default = {"tflite": "int8"}.get(format, "float")
    assert contract["head"] == options.get("head", default)
    if options.get("head") == "raw":
        assert [o["name"] for o in contract["raw"]["outputs"]] == ["boxes"] * 3 + ["scores"] * 3
        assert contract["raw"]["reg_max"] == 16
    else:
        assert contract["boxes"] == ("pixels" if format == "openvino" else "normalised")
    assert contract["layout"] == ("NHWC" if format == "tflite" else "NCHW")
    assert contract["version"] == yolo_edgequant.__version__
    assert {p.name for p in made.parent.iterdir()} == {"shapes.pt", name}, "nothing else is left"


@pytest.mark.parametrize(
    ("options", "left_out"), [({}, set()), ({"head": "raw"}, {"SOFTMAX", "SUB", "TRANSPOSE"})], ids=["int8", "raw"]
)
def test_tflite_is_nhwc_int8_from_end_to_end_with_builtin_operators_only(exported, options, left_out):
    graph = Graph(exported("tflite", **options).read_bytes())
    assert graph.shape(graph.inputs[0]) == (1, 160, 160, 3)
    assert {graph.dtype(t) for t in (*graph.inputs, *graph.outputs)} == {"INT8"}
    assert {op.kind for op in graph.operations} == INTEGER_OPERATORS - left_out
    floats = [op.kind for op in graph.operations if any(graph.dtype(t) == "FLOAT32" for t in op.outputs)]
    assert floats == []


def test_saved_model_has_all_its_files_and_all_detect(shapes_model, shapes_data, fp32):
    folder = Path(export(shapes_model, shapes_data, format="saved_model"))
    assert (folder / "saved_model.pb").is_file()
    least = {"float32": 0.999, "float16": 0.98, "int8": 0.95, "integer_quant": 0.97, "full_integer_quant": 0.85}
    assert {p.name for p in folder.glob("*.tflite")} == {f"shapes_{tag}.tflite" for tag in least}
    for tag, share in least.items():
        assert score(folder / f"shapes_{tag}.tflite", shapes_data) > share * fp32, tag
    assert score(folder, shapes_data) == pytest.approx(fp32, abs=1e-3)


COMPILER = """\
    #!/usr/bin/env python3
    import pathlib, shutil, sys
    if sys.argv[1:] == ["--version"]:
        print("Edge TPU Compiler version 16.0.384591198")
        raise SystemExit
    *options, source = sys.argv[1:]
    assert options[0] == "--out_dir" and pathlib.Path(options[1]).is_dir(), options
    assert "--search_delegate" in options, options
    assert source.endswith("_full_integer_quant.tflite"), source
    content = pathlib.Path(source).read_bytes()
    assert content[4:8] == b"TFL3"
    if b"fail" in pathlib.Path(sys.argv[0]).with_name("mood").read_bytes():
        raise SystemExit("internal compiler error")
    name = pathlib.Path(source).stem + "_edgetpu.tflite"
    (pathlib.Path(options[1]) / name).write_bytes(content)
"""


@pytest.fixture
def compiler(tmp_path_factory, monkeypatch):
    """A stand-in for edgetpu_compiler on PATH; the function returned sets its mood."""
    folder = tmp_path_factory.mktemp("bin")
    program = folder / "edgetpu_compiler"
    program.write_text(textwrap.dedent(COMPILER))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    (folder / "mood").write_text("good")
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return lambda mood: (folder / "mood").write_text(mood)


def test_edgetpu_compiles_the_integer_file(shapes_model, shapes_data, compiler):
    made = Path(export(shapes_model, shapes_data, format="edgetpu"))
    assert made.name == "shapes_full_integer_quant_edgetpu.tflite"
    assert BaseBackend.read_metadata(made)["edgequant"]["layout"] == "NHWC"
    with zipfile.ZipFile(made) as archive:
        assert "metadata.json" in archive.namelist()


def test_edgetpu_keeps_the_finished_file_when_the_compiler_fails(shapes_model, shapes_data, compiler):
    compiler("fail")
    with pytest.raises(CompilerError, match=r"shapes_full_integer_quant\.tflite"):
        export(shapes_model, shapes_data, format="edgetpu")
    assert (shapes_model.parent / "shapes_full_integer_quant.tflite").is_file()


def test_edgetpu_without_a_compiler_names_the_file_and_the_command(shapes_model, shapes_data, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingToolError) as raised:
        export(shapes_model, shapes_data, format="edgetpu", quantize=None)
    made = shapes_model.parent / "shapes_full_integer_quant.tflite"
    assert made.is_file()
    assert str(made) in str(raised.value)
    assert "edgetpu_compiler --search_delegate shapes_full_integer_quant.tflite" in str(raised.value)


def test_split_and_fraction_choose_the_images_and_few_are_warned_of(shapes_model, shapes_data, monkeypatch, caplog):
    from yolo_edgequant import pipeline

    counts = []
    calibrate = pipeline.calibrate

    def counting(content, images, *rest, **more):
        images = list(images)
        counts.append(len(images))
        return calibrate(content, iter(images), *rest, **more)

    monkeypatch.setattr(pipeline, "calibrate", counting)
    for arguments in ({"split": "train"}, {"split": "val"}, {"split": "train", "fraction": 0.5}):
        export(shapes_model, shapes_data, format="litert", **arguments)
    assert counts == [21, 35, 11], "one in eight is held back"
    assert "calibrating on 12 images; fewer than 100" in caplog.text


def test_several_threads_export_at_once(tmp_path, shapes_model, shapes_data):
    def work(head):
        folder = tmp_path / head
        folder.mkdir()
        model = folder / "shapes.pt"
        model.write_bytes(shapes_model.read_bytes())
        return Path(export(model, shapes_data, format="tflite", head=head))

    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(work, ["int8", "float"]))
    outputs = [Graph(path.read_bytes()) for path in made]
    assert [g.dtype(g.outputs[0]) for g in outputs] == ["INT8", "FLOAT32"]


def test_an_export_that_fails_leaves_no_half_file_and_the_next_one_works(shapes_model, shapes_data, monkeypatch):
    from yolo_edgequant.errors import OutputError

    write = Path.write_bytes

    def full(self, content):
        write(self, content[:100])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(Path, "write_bytes", full)
        with pytest.raises(OutputError, match="No space left on device"):
            export(shapes_model, shapes_data, format="tflite")
    assert {p.name for p in shapes_model.parent.iterdir()} == {"shapes.pt"}
    assert Path(export(shapes_model, shapes_data, format="tflite")).is_file()


def test_openvino_leaves_no_half_folder_and_keeps_the_old_one(shapes_model, shapes_data, monkeypatch):
    import openvino as ov

    from yolo_edgequant.errors import OutputError

    made = Path(export(shapes_model, shapes_data, format="openvino"))
    before = (made / "shapes.xml").read_bytes()

    def full(model, file, **kwargs):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ov, "save_model", full)
    with pytest.raises(OutputError, match="No space left on device"):
        export(shapes_model, shapes_data, format="openvino")
    assert (made / "shapes.xml").read_bytes() == before
    assert {p.name for p in shapes_model.parent.iterdir()} == {"shapes.pt", made.name}


@pytest.mark.parametrize("format", ["litert", "openvino"])
def test_an_export_can_be_repeated(exported, shapes_model, shapes_data, format):
    def graph(made):
        return (made / "shapes.bin").read_bytes() if made.is_dir() else made.read_bytes().rpartition(b"PK\x03\x04")[0]

    assert graph(exported(format)) == graph(Path(export(shapes_model, shapes_data, format=format)))


def test_openvino_keeps_the_head_in_fp32_on_every_cpu(exported):
    """With bfloat16, OpenVINO leaves in FP32 what lies behind the last convolution."""
    import openvino as ov

    model = ov.Core().read_model(next(exported("openvino").glob("*.xml")))
    kinds = Counter(node.get_type_name() for node in model.get_ops())
    assert kinds["Softmax"] == 1
    layers = [name for name, m in YOLO(WEIGHTS).model.named_modules() if isinstance(m, nn.Conv2d)]
    assert kinds["Convolution"] == len(layers) - 1, "none for the expectation of DFL"


def test_openvino_runs_each_image_once(shapes_model, shapes_data, monkeypatch):
    from ultralytics.engine.exporter import Exporter

    taken = []
    transform = Exporter._transform_fn

    def counting(self, item):
        taken.append(1)
        return transform(self, item)

    monkeypatch.setattr(Exporter, "_transform_fn", counting)
    export(shapes_model, shapes_data, format="openvino")
    assert len(taken) == 24


FP32 = """
import datetime as time, sys, zipfile
from pathlib import Path
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
"""


def parts(torchscript):
    """All in a TorchScript file but the call stacks of its tracing, which name every caller's source line."""
    with zipfile.ZipFile(torchscript) as archive:
        varying = (".debug_pkl", ".data/serialization_id")
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith(varying)}


@pytest.mark.slow
def test_fp32_files_are_byte_for_byte_upstreams(shapes_model):
    contents = []
    for state in ("with", "without"):  # processes of their own: names in the files are numbered
        subprocess.run([sys.executable, "-c", FP32, state], cwd=shapes_model.parent, env=environment(), check=True)
        made = [p for p in sorted(shapes_model.parent.rglob("*")) if p.is_file() and p != shapes_model]
        contents.append({p.name: parts(p) if p.suffix == ".torchscript" else p.read_bytes() for p in made})
        for path in made:
            path.unlink()
    assert {Path(name).suffix for name in contents[0]} == {".torchscript", ".onnx", ".xml", ".bin", ".yaml", ".tflite"}
    assert contents[0] == contents[1]


def test_predict_gives_the_same_boxes_as_the_checkpoint(exported, shapes_data):
    images = sorted((shapes_data.parent / "images" / "val").glob("*.png"))[:6]
    made = exported("tflite", head="float", io="uint8")
    for image in images:
        expected = YOLO(WEIGHTS)(image, imgsz=160, conf=0.5, verbose=False)[0].boxes
        seen = YOLO(made, task="detect")(image, imgsz=160, conf=0.4, verbose=False)[0].boxes
        for box, kind in zip(expected.xyxy, expected.cls, strict=True):
            distance = (seen.xyxy - box).abs().amax(1)
            assert distance.min() < 8
            assert seen.cls[distance.argmin()] == kind


@pytest.mark.slow
def test_nothing_is_fetched_and_site_packages_stays_as_it_is(shapes_model, shapes_data):
    """By the export with the most tools."""
    program = """
import pathlib, socket, sys
def refuse(*arguments):
    raise AssertionError(f"network: {arguments}")
socket.socket.connect = socket.getaddrinfo = refuse
import yolo_edgequant, ultralytics
from ultralytics import YOLO
def sources():
    place = pathlib.Path(ultralytics.__file__).parents[1]
    return {p: p.stat().st_mtime_ns for name in ("onnx2tf", "ultralytics") for p in (place / name).rglob("*.py")}
before = sources()
YOLO("shapes.pt").export(format="saved_model", quantize=8, data=sys.argv[1], imgsz=64, split="train")
assert sources() == before
"""
    folder = shapes_model.parent
    run = subprocess.run(
        [sys.executable, "-c", program, str(shapes_data)],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-500:]
