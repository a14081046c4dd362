"""The board's script with a delegate that is no accelerator: an interpreter on the CPU, as it is or with an error."""

import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from ultralytics import YOLO

from yolo_edgequant.demo.train import WEIGHTS
from yolo_edgequant.errors import InferenceError
from yolo_edgequant.processes import environment
from yolo_edgequant.runtime import board, interpreter
from yolo_edgequant.runtime.accuracy import Boxes
from yolo_edgequant.runtime.interpreter import Tensor
from yolo_edgequant.upstream.validation import accuracy

pytestmark = pytest.mark.export


@pytest.fixture(scope="module")
def file(tmp_path_factory, shapes_data):
    model = YOLO(shutil.copy(WEIGHTS, tmp_path_factory.mktemp("file")))
    return board.Path(model.export(format="tflite", quantize=8, data=shapes_data, imgsz=160))


@pytest.fixture
def images(shapes_data):
    return str(shapes_data.parent / "images" / "val")


@pytest.fixture
def stand_in(monkeypatch):
    """Puts an interpreter in place of a delegate; `change` is what it makes of an output."""

    def put(change=lambda array: array, **options):
        class Changed(Interpreter):
            def get_tensor(self, *arguments):
                return change(super().get_tensor(*arguments))

        def opened(experimental_delegates=None, **arguments):
            if experimental_delegates is None:
                return Interpreter(**arguments)
            assert experimental_delegates == ["loaded from stand-in.so"]
            return Changed(**arguments, **options)

        module = SimpleNamespace(Interpreter=opened, load_delegate=lambda library: f"loaded from {library}")
        monkeypatch.setattr(interpreter, "_first_installed", lambda names: module)

    return put


def test_accuracy_is_that_of_ultralytics(file, images, shapes_data):
    (side,) = board.measure(file, images, runs=2).sides
    assert side.accuracy.labels > 40
    assert side.accuracy.map == pytest.approx(accuracy(file, shapes_data, "detect", imgsz=160), abs=0.005)
    assert side.speed.median > 0


def test_a_delegate_that_is_the_cpu_agrees(file, images, stand_in, capsys, tmp_path):
    stand_in()
    out = tmp_path / "row.json"
    assert (
        board.main([str(file), "--images", images, "--delegate", "stand-in.so", "--runs", "3", "--out", str(out)]) == 0
    )
    said = capsys.readouterr().out
    assert "CPU and delegate agree" in said
    assert "no noise" in said
    row = json.loads(out.read_text())
    assert [side["name"] for side in row["sides"]] == ["CPU", "stand-in.so"]
    assert row["tensors"][0]["equal"] == 1
    assert row["objects"] == 1
    assert row["machine"]["delegate"] == "stand-in.so"
    assert row["machine"]["packages"]["ai-edge-litert"]
    assert len(row["file"]["sha256"]) == 64


def test_other_kernels_round_otherwise_and_agree(file, images, stand_in):
    stand_in(experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    row = board.measure(file, images, "stand-in.so", runs=1)
    assert not row.problems
    assert 0.5 < row.tensors[0].equal < 1
    assert row.tensors[0].snr_db > 15


@pytest.mark.parametrize(
    ("change", "problem"),
    [(lambda array: np.full_like(array, -128), "0.0% of the objects"), (lambda array: array // 4, "of the objects")],
    ids=["nothing", "a quarter"],
)
def test_a_delegate_that_is_wrong_is_found_out(file, images, stand_in, capsys, tmp_path, change, problem):
    stand_in(change)
    out = tmp_path / "row.json"
    assert (
        board.main([str(file), "--images", images, "--delegate", "stand-in.so", "--runs", "1", "--out", str(out)]) == 1
    )
    assert problem in (said := capsys.readouterr().out)
    assert "mAP50-95 differs" in said
    assert len(json.loads(out.read_text())["problems"]) == 2


def test_without_labels_there_is_no_accuracy(file, images, tmp_path):
    row = board.measure(file, images, labels=tmp_path, limit=2, runs=1)
    assert row.sides[0].accuracy is None
    assert row.images == 2
    assert "| CPU | - | - |" in board.table(row)


def test_errors_are_one_line_and_status_2(file, images, tmp_path, capsys):
    assert board.main([str(tmp_path / "none.tflite"), "--images", images]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: model ")
    compiled = shutil.copy(file, tmp_path / "a_edgetpu.tflite")
    with pytest.raises(InferenceError, match="--cpu-file"):
        board.measure(compiled, images, "edgetpu")


def test_a_difference_in_numbers():
    kind = Tensor((1, 4), np.dtype(np.int8), 0.5, 0)
    one = np.array([[[2, 4, 6, 8]]], np.int8)
    two = np.array([[[2, 4, 6, 5]]], np.int8)
    apart = board.difference("x", kind, kind, one, two)
    assert (apart.equal, apart.largest, apart.mean) == (0.75, 3, 0.75)
    assert apart.snr_db == pytest.approx(10 * np.log10((1 + 4 + 9 + 16) / 1.5**2))


def test_objects_found_again():
    def objects(*scores):
        places = np.array([[100 * i, 0, 100 * i + 50, 50] for i in range(len(scores))], np.float32)
        return [Boxes(places, np.zeros(len(scores), np.int64), np.array(scores, np.float32))]

    assert board.found_again(objects(0.9, 0.4), objects(0.9, 0.26)) == 1
    assert board.found_again(objects(0.9, 0.4), objects(0.9, 0.2)) == 0.5
    assert board.found_again(objects(0.3), objects()) == 1  # not sure enough to count
    assert board.found_again(objects(0.9), objects()) == 0


def test_it_needs_no_torch(file, images, tmp_path):
    code = (
        "import sys; from yolo_edgequant.runtime import board; "
        f"status = board.main([{str(file)!r}, '--images', {images!r}, '--limit', '2', '--runs', '1']); "
        "print(sorted(sys.modules.keys() & {'torch', 'ultralytics', 'rich', 'typer'})); sys.exit(status)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "[]"
