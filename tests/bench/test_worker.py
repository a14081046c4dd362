import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from yolo_edgequant import contract
from yolo_edgequant.bench import run as bench
from yolo_edgequant.bench import worker
from yolo_edgequant.bench.run import Settings, cases
from yolo_edgequant.demo.train import SIZE, WEIGHTS
from yolo_edgequant.errors import ContractError
from yolo_edgequant.processes import environment

pytestmark = pytest.mark.export


@pytest.fixture(scope="module")
def whole(tmp_path_factory, shapes_data):
    """A whole bench, once: what it was told, the rows after each one filled, all rows at the end, and its folder."""
    folder = tmp_path_factory.mktemp("bench")
    rows = [
        *cases(["litert"], ["float"], ["channel"], [], baseline=True),
        *cases(["openvino"], ["int8"], ["channel"], [], baseline=False),
    ]
    settings = Settings(WEIGHTS, shapes_data, (SIZE, SIZE), threads=1, images=3)
    told, shown = [], []
    done = bench.run(settings, rows, folder, told.append, lambda filled: shown.append(len(filled)))
    return told, shown, done, folder


@pytest.fixture(scope="module")
def files(whole):
    """Upstream's own .tflite, ours, and our OpenVINO folder."""
    folder = whole[-1]
    return [
        folder / "litert_stock" / "shapes_int8.tflite",
        folder / "litert_float_channel_activation_all" / "shapes_int8.tflite",
        folder / "openvino_int8_channel_activation_all" / "shapes_int8_openvino_model",
    ]


def test_a_whole_bench_fills_every_row(whole):
    told, shown, done, _ = whole
    assert [row.error for row in done] == [None] * 4
    assert [(row.format, row.head) for row in done] == [
        ("pytorch", "fp32"),
        ("litert", "stock"),
        ("litert", "float"),
        ("openvino", "int8"),
    ]
    assert shown == [1, 2, 3, 4], "each row is shown as it is filled"
    reference, stock, ours, openvino = done
    assert (reference.retention, reference.latency_ms, reference.size_mb) == (1.0, None, None)
    assert reference.map > 0.75
    for row in (stock, ours, openvino):
        assert row.retention == pytest.approx(row.map / reference.map)
        assert row.map < row.map50 <= 1
        assert row.latency_ms > 0
        assert row.image_ms > row.latency_ms / 2
        assert 0.5 < row.size_mb < 2
        assert 1 < row.export_s < 200
        assert 500 < row.peak_mb < 8000
        assert row.retention_error > 0
        assert row.images == 40
        assert abs(row.threshold_shift) < 0.5
        assert abs(row.score_change) < 0.3
        assert reference.map < row.f1_float <= 1
    assert ours.f1 > 0.95 * ours.f1_float
    assert ours.retention_error < 0.03
    assert ours.retention > 0.95
    assert openvino.retention > 0.85
    assert stock.decoding_ms is None
    assert ours.image_ms > ours.decoding_ms > 0
    assert told[0] == "validating the FP32 model"
    assert told[-1] == "timing 3 files on 3 images, from image to boxes"


def test_a_checkpoint_says_its_task_and_a_broken_one_fails(tmp_path):
    assert bench.task(WEIGHTS, tmp_path / "log") == "detect"
    assert bench.task(Path(__file__).parents[1] / "weights" / "shapes-obb.pt", tmp_path / "log") == "obb"
    (tmp_path / "broken.pt").write_bytes(b"no checkpoint")
    with pytest.raises(bench.WorkerError, match=r"^task failed: "):
        bench.task(tmp_path / "broken.pt", tmp_path / "log")


def test_the_stock_file_is_upstreams_own_and_the_others_are_ours(files):
    stock, ours, openvino = files
    with pytest.raises(ContractError, match="does not say how to decode it"):
        contract.read(stock)
    assert (contract.read(ours).head, contract.read(openvino).head) == ("float", "int8")


def test_the_size_is_that_of_the_file_or_of_the_files_in_the_folder(whole, files):
    for row, path in zip(whole[2][1:], files, strict=True):
        size = sum(file.stat().st_size for file in path.rglob("*")) if path.is_dir() else path.stat().st_size
        assert row.size_mb * 1e6 == pytest.approx(size, rel=1e-9)


def test_the_log_of_each_step_is_kept(whole):
    logs = {log.relative_to(whole[-1]).as_posix() for log in whole[-1].rglob("*.log")}
    places = ("litert_stock", "litert_float_channel_activation_all", "openvino_int8_channel_activation_all")
    steps = {f"{place}/{step}.log" for place in places for step in ("export", "validate")}
    assert logs == {"validate.log", "latency.log", "images.log", *steps}


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"head": "float"}, "integer_quant"),
        ({"head": "int8"}, "full_integer_quant"),
        ({"stock": True}, "full_integer_quant"),
    ],
)
def test_of_a_saved_models_folder_the_file_with_the_options_is_taken(tmp_path, monkeypatch, arguments, kind):
    from yolo_edgequant.upstream import models

    folder = tmp_path / "shapes_saved_model"
    folder.mkdir()
    for size, name in enumerate(("integer_quant", "full_integer_quant"), 1):
        (folder / f"shapes_{name}.tflite").write_bytes(b"x" * size)

    class Model:
        def __init__(self, file):
            pass

        def export(self, **arguments):
            return str(folder)

    monkeypatch.setattr(models, "YOLO", Model)
    monkeypatch.chdir(tmp_path)
    result = worker.export("shapes.pt", **{"stock": False, "format": "saved_model", **arguments})
    assert Path(result["path"]) == folder / f"shapes_{kind}.tflite"
    assert result["bytes"] == (folder / f"shapes_{kind}.tflite").stat().st_size


def test_latency_imports_no_torch(tmp_path, files):
    """It is what a device would do, in the memory of a device."""
    code = "import sys; from yolo_edgequant.bench import worker; worker._RUNS = worker._ROUNDS = 1; "
    code += f"worker.latency([{str(files[1])!r}], 1); print(sorted({{'torch', 'ultralytics'}} & set(sys.modules)))"
    child = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    )
    assert child.stdout == "[]\n"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot bind a process to cores")
def test_images_keeps_to_its_cores(tmp_path, shapes_data, files):
    code = f"""
import json, os
import cv2, torch
from ultralytics.nn.backends import litert
from yolo_edgequant.bench import worker
litert.NUM_THREADS = 2
cv2.setNumThreads(2)
torch.set_num_threads(2)
worker.images([{str(files[1])!r}], [False], {str(shapes_data)!r}, "val", [{SIZE}, {SIZE}], 1, 1)
print(json.dumps([len(os.sched_getaffinity(0)), cv2.getNumThreads(), torch.get_num_threads(), litert.NUM_THREADS]))
"""
    child = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    )
    assert json.loads(child.stdout.splitlines()[-1]) == [1, 1, 1, 1]
