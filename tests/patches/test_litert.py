"""``.tflite`` files by the export call: names, types, accuracy, and what is left when something fails."""

import shutil
import stat
import textwrap
import zipfile
from pathlib import Path

import numpy as np
import pytest
from ultralytics import YOLO

import yolo_edgequant
from tests.graphs import Network
from tests.inspection.test_vela import FAKE
from yolo_edgequant.contract import read
from yolo_edgequant.demo.dataset import data_set
from yolo_edgequant.demo.train import WEIGHTS
from yolo_edgequant.errors import CompilerError, MissingToolError, OutputError
from yolo_edgequant.inspection import vela
from yolo_edgequant.options import ExportOptions
from yolo_edgequant.patches import litert
from yolo_edgequant.targets.formats import PROFILES, resolve
from yolo_edgequant.tflite.graph import Graph
from yolo_edgequant.tflite.packing import check_inside, unpack

OBB = Path(__file__).parents[1] / "weights/shapes-obb.pt"

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
    "TRANSPOSE",
}

INT8, UINT8, FLOAT = "INT8", "UINT8", "FLOAT32"

#: Format, options, the end of the file's name, types of input and outputs; a name has one meaning.
NAMES = [
    ("tflite", {}, "full_integer_quant", INT8, INT8),
    ("tflite", {"io": "uint8"}, "full_integer_quant", UINT8, UINT8),
    ("tflite", {"io": "float"}, "integer_quant", FLOAT, FLOAT),
    ("tflite", {"head": "raw"}, "full_integer_quant", INT8, INT8),
    ("tflite", {"head": "raw", "io": "float"}, "integer_quant", FLOAT, FLOAT),
    ("tflite", {"head": "float"}, "integer_quant", FLOAT, FLOAT),
    ("tflite", {"head": "float", "io": "int8"}, "int8_input_quant", INT8, FLOAT),
    ("tflite", {"head": "float", "io": "uint8"}, "uint8_input_quant", UINT8, FLOAT),
    ("edgetpu", {}, "full_integer_quant", INT8, INT8),
    ("edgetpu", {"head": "float"}, "int8_input_quant", INT8, FLOAT),
    ("edgetpu", {"head": "float", "io": "uint8"}, "uint8_input_quant", UINT8, FLOAT),
    ("litert", {}, "int8", FLOAT, FLOAT),
    ("litert", {"head": "int8"}, "int8", FLOAT, FLOAT),
    ("litert", {"head": "raw"}, "int8", FLOAT, FLOAT),
]


@pytest.mark.parametrize(("format", "options", "tag"), [case[:3] for case in NAMES], ids=str)
def test_one_name_has_one_meaning(format, options, tag):
    assert litert.file_tag(resolve(PROFILES[format], ExportOptions(**options))) == tag


@pytest.mark.export
@pytest.mark.parametrize(
    ("format", "options", "tag", "source", "results"),
    [case for case in NAMES if case[0] != "edgetpu" and case[:2] != ("litert", {"head": "int8"})],
    ids=str,
)
def test_files_have_the_types_that_their_names_say_and_their_constants_inside(
    exported, format, options, tag, source, results
):
    file = exported(format, **options)
    assert file.name == f"shapes_{tag}.tflite"
    content = file.read_bytes()
    check_inside(content)
    graph = Graph(content)
    assert {graph.dtype(tensor) for tensor in graph.inputs} == {source}
    assert {graph.dtype(tensor) for tensor in graph.outputs} == {results}
    assert {p.name for p in file.parent.iterdir()} == {"shapes.pt", file.name}, "nothing else is left"


@pytest.mark.export
@pytest.mark.parametrize(
    ("format", "options", "least"),
    [
        ("litert", {}, 0.97),
        ("tflite", {}, 0.85),
        ("tflite", {"head": "float"}, 0.97),
        ("tflite", {"head": "float", "io": "uint8"}, 0.97),
        ("tflite", {"granularity": "tensor", "ranges": "minmax", "io": "uint8"}, 0.75),
        ("litert", {"head": "raw"}, 0.97),
        ("tflite", {"head": "raw"}, 0.97),
        ("tflite", {"head": "raw", "io": "float"}, 0.97),
        ("tflite", {"head": "raw", "granularity": "tensor", "io": "uint8"}, 0.95),
    ],
    ids=str,
)
def test_exported_files_detect_and_say_what_they_hold(exported, score, shapes_data, fp32, format, options, least):
    file = exported(format, **options)
    assert score(file, shapes_data) > least * fp32
    contract = read(file)
    assert contract.names == {0: "circle", 1: "square", 2: "triangle", 3: "star"}
    assert contract.head == options.get("head", "int8" if format == "tflite" else "float")
    assert contract.granularity == options.get("granularity", "channel")
    assert contract.ranges == options.get("ranges", "activation")
    names = [output.name for output in contract.outputs]
    if contract.head == "raw":
        assert names == ["boxes"] * 3 + ["scores"] * 3
        assert contract.raw.reg_max == 16
    else:
        assert names == ["detections"]
        assert contract.normalised
    assert contract.channels_last == (format == "tflite")
    assert contract.version == yolo_edgequant.__version__
    assert contract.verified.images == 3
    assert contract.verified.agreement > 0.7


@pytest.mark.export
@pytest.mark.parametrize(
    ("options", "left_out"), [({}, set()), ({"head": "raw"}, {"SOFTMAX", "TRANSPOSE"})], ids=["int8", "raw"]
)
def test_tflite_is_nhwc_int8_from_end_to_end_with_builtin_operators_only(exported, options, left_out):
    graph = Graph(exported("tflite", **options).read_bytes())
    assert graph.shape(graph.inputs[0]) == (1, 160, 160, 3)
    assert {graph.dtype(t) for t in (*graph.inputs, *graph.outputs)} == {"INT8"}
    assert {op.kind for op in graph.operations} == INTEGER_OPERATORS - left_out
    floats = [op.kind for op in graph.operations if any(graph.dtype(t) == "FLOAT32" for t in op.outputs)]
    assert floats == []


#: Format, options, and what the outputs of a file are called.
LEVELS = [f"{name}_{stride}" for name in ("boxes", "scores") for stride in (8, 16, 32)]
ARRANGEMENTS = [
    ("tflite", {"head": "raw", "outputs": "merged"}, ["boxes", "scores"]),
    ("tflite", {"head": "raw", "outputs": "grid"}, LEVELS),
    ("tflite", {"head": "raw"}, LEVELS),
    ("tflite", {}, ["detections"]),
]


@pytest.mark.export
@pytest.mark.parametrize(("format", "options", "names"), ARRANGEMENTS, ids=str)
def test_outputs_in_any_arrangement_are_named_and_read_alike(
    exported, same_detections, shapes_data, format, options, names
):
    file = exported(format, **options)
    content = file.read_bytes()
    graph = Graph(content)
    assert [graph.name(tensor) for tensor in graph.outputs] == names
    (signature,) = unpack(content).signatureDefs
    named = {entry.tensorIndex: entry.name.decode() for entry in signature.outputs}
    assert [named[tensor] for tensor in graph.outputs] == names == [output.title for output in read(file).outputs]
    if options.get("outputs") == "grid":
        shapes = [graph.shape(tensor) for tensor in graph.outputs]
        assert shapes == [(1, side, side, channels) for channels in (64, 4) for side in (20, 10, 5)]
    assert same_detections(file, "detect", sorted((shapes_data.parent / "images/val").glob("*.png"))[:3]) > 3


@pytest.mark.export
def test_rotated_boxes_in_one_output_of_integers_are_read_alike(export, tmp_path, same_detections):
    data = data_set(tmp_path / "data", 16, 4, 160, seed=5, task="obb")
    file = export(shutil.copy(OBB, tmp_path), data, format="tflite", outputs="single", verify=False)
    graph = Graph(file.read_bytes())
    assert [graph.name(tensor) for tensor in graph.outputs] == ["detections"]
    assert graph.shape(graph.outputs[0])[2] == 525
    assert not read(file).unturned
    assert {graph.dtype(tensor) for op in graph.operations for tensor in op.outputs} == {"INT8"}
    assert same_detections(file, "obb", sorted((tmp_path / "data/images/val").glob("*.png"))[:3]) > 0


@pytest.mark.export
def test_predict_gives_the_same_boxes_as_the_checkpoint(exported, shapes_data):
    images = sorted((shapes_data.parent / "images" / "val").glob("*.png"))[:6]
    file = exported("tflite", head="float", io="uint8")
    for image in images:
        expected = YOLO(WEIGHTS)(image, imgsz=160, conf=0.5, verbose=False)[0].boxes
        boxes = YOLO(file, task="detect")(image, imgsz=160, conf=0.4, verbose=False)[0].boxes
        for box, kind in zip(expected.xyxy, expected.cls, strict=True):
            distance = (boxes.xyxy - box).abs().amax(1)
            assert distance.min() < 8
            assert boxes.cls[distance.argmin()] == kind


@pytest.mark.export
def test_an_export_can_be_repeated(exported, shapes_model, shapes_data):
    """Converted anew."""
    settings = {"quantize": 8, "data": shapes_data, "split": "train", "imgsz": 160}
    files = [exported("litert"), Path(YOLO(shapes_model).export(format="litert", **settings))]
    one, other = (file.read_bytes().rpartition(b"PK\x03\x04")[0] for file in files)
    assert len(one) > 600_000
    assert one == other


@pytest.mark.export
def test_an_export_that_fails_leaves_no_half_file_and_the_next_one_works(
    export, shapes_model, shapes_data, monkeypatch
):
    write = Path.write_bytes

    def full(self, content):
        if self.suffix == ".tflite" and self.name.startswith("shapes"):
            write(self, content[:100])
            raise OSError(28, "No space left on device")
        return write(self, content)

    with monkeypatch.context() as broken:
        broken.setattr(Path, "write_bytes", full)
        with pytest.raises(OutputError, match="No space left on device"):
            export(shapes_model, shapes_data, format="tflite")
    assert {p.name for p in shapes_model.parent.iterdir()} == {"shapes.pt"}
    assert export(shapes_model, shapes_data, format="tflite").is_file()


COMPILER = """\
    #!/usr/bin/env python3
    import pathlib, sys, zipfile
    if sys.argv[1:] == ["--version"]:
        print("Edge TPU Compiler version 16.0.384591198")
        raise SystemExit
    *options, source = sys.argv[1:]
    assert options[0] == "--out_dir" and pathlib.Path(options[1]).is_dir(), options
    assert "--search_delegate" in options, options
    assert source.endswith("_full_integer_quant.tflite"), source
    start = min(entry.header_offset for entry in zipfile.ZipFile(source).infolist())
    content = pathlib.Path(source).read_bytes()[:start]  # the compiler writes the model anew
    assert content[4:8] == b"TFL3"
    if b"fail" in pathlib.Path(sys.argv[0]).with_name("mood").read_bytes():
        raise SystemExit("internal compiler error")
    name = pathlib.Path(source).stem + "_edgetpu.tflite"
    (pathlib.Path(options[1]) / name).write_bytes(content)
"""


def program(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(content))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def compiler(tmp_path_factory, monkeypatch):
    """A stand-in for edgetpu_compiler on PATH; the function returned sets its mood."""
    folder = tmp_path_factory.mktemp("bin")
    program(folder / "edgetpu_compiler", COMPILER)
    (folder / "mood").write_text("good")
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return lambda mood: (folder / "mood").write_text(mood)


@pytest.fixture
def settings_folder(tmp_path_factory, monkeypatch):
    """Ultralytics' settings folder, of this test alone, and no compiler on PATH."""
    from ultralytics.utils.export import tensorflow

    from yolo_edgequant.upstream import models

    folder = tmp_path_factory.mktemp("settings")
    monkeypatch.setattr(models, "USER_CONFIG_DIR", folder)
    monkeypatch.setattr(tensorflow, "USER_CONFIG_DIR", folder)
    real = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, *rest: None if name == "edgetpu_compiler" else real(name, *rest))
    return folder


@pytest.mark.export
def test_edgetpu_compiles_the_integer_file(export, shapes_model, shapes_data, compiler):
    file = export(shapes_model, shapes_data, format="edgetpu")
    assert file.name == "shapes_full_integer_quant_edgetpu.tflite"
    assert read(file).channels_last
    check_inside(file.read_bytes())
    with zipfile.ZipFile(file) as archive:
        assert "metadata.json" in archive.namelist()


@pytest.mark.export
def test_edgetpu_uses_the_compiler_that_ultralytics_keeps(export, shapes_model, shapes_data, settings_folder):
    """As upstream does: by the loader beside it."""
    folder = settings_folder / "edgetpu-compiler/usr/bin/edgetpu_compiler_bin"
    program(folder / "edgetpu_compiler", COMPILER)
    (folder / "mood").write_text("good")
    loader = """\
        #!/bin/sh
        test "$1" = --library-path || exit 3
        echo "$3" > "$2/ran"
        shift 2
        exec "$@"
    """
    program(folder / "ld-linux-x86-64.so.2", loader)
    file = export(shapes_model, shapes_data, format="edgetpu")
    assert file.name == "shapes_full_integer_quant_edgetpu.tflite"
    assert read(file).io == "int8"
    assert (folder / "ran").read_text().strip() == str(folder / "edgetpu_compiler")


@pytest.mark.export
def test_edgetpu_keeps_the_finished_file_when_the_compiler_fails(export, shapes_model, shapes_data, compiler):
    compiler("fail")
    with pytest.raises(CompilerError, match=r"shapes_full_integer_quant\.tflite"):
        export(shapes_model, shapes_data, format="edgetpu")
    assert (shapes_model.parent / "shapes_full_integer_quant.tflite").is_file()


@pytest.mark.export
def test_edgetpu_without_a_compiler_names_the_file_and_the_command(export, shapes_model, shapes_data, settings_folder):
    with pytest.raises(MissingToolError) as raised:
        export(shapes_model, shapes_data, format="edgetpu", quantize=None)
    file = shapes_model.parent / "shapes_full_integer_quant.tflite"
    check_inside(file.read_bytes())
    assert read(file).io == "int8"
    assert str(file) in str(raised.value)
    assert "edgetpu_compiler --search_delegate shapes_full_integer_quant.tflite" in str(raised.value)
    assert not list(settings_folder.iterdir()), "nothing is fetched"


@pytest.mark.export
def test_the_edge_tpu_is_given_rotated_boxes_in_integers(export, tmp_path, settings_folder):
    data = data_set(tmp_path / "data", 16, 4, 160, seed=5, task="obb")
    with pytest.raises(MissingToolError):
        export(shutil.copy(OBB, tmp_path), data, format="edgetpu")
    graph = Graph((tmp_path / "shapes-obb_full_integer_quant.tflite").read_bytes())
    assert {graph.dtype(tensor) for op in graph.operations for tensor in op.outputs} == {"INT8"}
    assert not {op.kind for op in graph.operations} & {"COS", "SIN", "DEQUANTIZE"}


@pytest.fixture
def vela_program(tmp_path_factory, monkeypatch):
    """A stand-in for vela on PATH, which takes all of a file; the function returned replaces it."""
    path = tmp_path_factory.mktemp("bin") / "vela"
    program(path, FAKE.replace("ethos-u85-256", "ethos-u65-256"))
    monkeypatch.setenv("PATH", str(path.parent), prepend=":")
    return lambda content: program(path, content)


@pytest.fixture
def finished(tmp_path):
    """A ``.tflite`` file of one convolution."""
    network = Network(1, 8, 8, 3)
    path = tmp_path / "raw.tflite"
    path.write_bytes(network.content(network.conv(network.input, np.ones((4, 3, 3, 3)))))
    return path


def lines(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "ultralytics.yolo_edgequant"]


def test_an_ethos_u_file_is_compiled_where_vela_is(finished, vela_program, caplog):
    with caplog.at_level("INFO"):
        litert._compile_ethos_u(finished, "nxp-imx93")
    first, said = lines(caplog)
    assert first == "compiling with vela..."
    assert "vela 5.2.0 for ethos-u65-256" in said
    assert "partition(s) on the Ethos-U65" in said
    assert finished.with_name("raw_vela.tflite").read_bytes() == b"compiled"


def test_where_vela_is_not_one_line_says_so(finished, monkeypatch, caplog):
    def find():
        raise MissingToolError("vela is not on PATH")

    monkeypatch.setattr(vela, "find", find)
    with caplog.at_level("INFO"):
        litert._compile_ethos_u(finished, "nxp-imx93")
    assert lines(caplog) == ["not compiled: vela is not on PATH"]
    assert list(finished.parent.iterdir()) == [finished]


def test_vela_that_fails_leaves_the_file(finished, vela_program):
    vela_program("#!/bin/sh\necho internal error\nexit 3\n")
    with pytest.raises(CompilerError, match=r"vela failed with status 3: internal error; '.*raw\.tflite' is kept"):
        litert._compile_ethos_u(finished, "nxp-imx93")
    assert finished.is_file()


@pytest.mark.export
@pytest.mark.parametrize("front", ["Python", "shell"])
def test_both_front_ends_compile_for_an_ethos_u(front, shapes_model, shapes_data, vela_program, monkeypatch, caplog):
    from yolo_edgequant import cli

    arguments = {"target": "nxp-imx93", "data": str(shapes_data), "split": "train", "imgsz": 160, "verify": False}
    with caplog.at_level("INFO"):
        if front == "Python":
            file = Path(YOLO(shapes_model).export(**arguments))
        else:
            cli.export([f"model={shapes_model}", *(f"{name}={value}" for name, value in arguments.items())])
            file = shapes_model.with_name("shapes_full_integer_quant.tflite")
    assert file.name == "shapes_full_integer_quant.tflite"
    assert read(file).raw.arrangement == "grid"
    assert file.with_name("shapes_full_integer_quant_vela.tflite").read_bytes() == b"compiled"
    assert sum("vela 5.2.0 for ethos-u65-256" in line for line in lines(caplog)) == 1, "once"


@pytest.mark.export
def test_a_file_for_another_device_is_not_given_to_vela(shapes_model, shapes_data, vela_program):
    arguments = {"target": "nxp-imx8mp", "data": shapes_data, "split": "train", "imgsz": 160, "verify": False}
    file = Path(YOLO(shapes_model).export(**arguments))
    assert {path.name for path in file.parent.iterdir()} == {"shapes.pt", file.name}
