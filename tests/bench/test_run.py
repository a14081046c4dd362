import json
import re
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tests.detections import random_detections
from yolo_edgequant.bench import run as bench
from yolo_edgequant.bench.run import Row, Settings, WorkerError, cases
from yolo_edgequant.errors import EdgeQuantError, OptionError
from yolo_edgequant.verification.bootstrap import retention
from yolo_edgequant.verification.score_shift import score_shift


def test_cases_are_every_possible_combination_in_order():
    rows = cases(["litert"], ["float", "int8"], ["channel", "tensor"], ["activation", "minmax"], baseline=False)
    assert rows == [
        Row("litert", head, granularity, ranges, corrections="all")
        for head in ("float", "int8")
        for granularity in ("channel", "tensor")
        for ranges in ("activation", "minmax")
    ]


def test_cases_without_ranges_take_each_formats_default():
    rows = cases(["litert", "openvino"], ["float"], ["channel"], [], baseline=False)
    assert [row.ranges for row in rows] == ["activation", "activation"]


def test_cases_leave_out_what_a_format_cannot_hold():
    rows = cases(["openvino"], ["float", "int8"], ["channel", "tensor"], [], baseline=False)
    assert [(row.head, row.granularity) for row in rows] == [("float", "channel"), ("int8", "channel")]


def test_cases_with_and_without_corrections():
    rows = cases(["litert"], ["raw"], ["channel"], [], False, ["none", "all"])
    assert [(row.format, row.corrections) for row in rows] == [("litert", "none"), ("litert", "all")]
    with pytest.raises(OptionError, match="corrections=cells"):
        cases(["openvino"], ["raw"], ["channel"], [], False, ["cells"])
    assert [row.corrections for row in cases(["openvino"], ["raw"], ["channel"], [], False)] == ["all"]


def test_a_baseline_row_comes_before_each_format():
    rows = cases(["litert", "tflite"], ["float"], ["channel"], [], baseline=True)
    assert [(row.format, row.head) for row in rows] == [
        ("litert", "stock"),
        ("litert", "float"),
        ("tflite", "stock"),
        ("tflite", "float"),
    ]
    assert rows[0] == Row("litert", "stock", "-", "-")


@pytest.mark.parametrize("name", ["onnx", "edgetpu", "LITERT"])
def test_a_format_that_bench_cannot_run_is_refused(name):
    with pytest.raises(OptionError, match=f"'{name}' is not one that bench can run: litert, tflite, "):
        cases(["litert", name], ["float"], ["channel"], [], baseline=False)


def test_a_format_with_no_possible_combination_is_an_error():
    with pytest.raises(OptionError, match="'openvino' has none of head=float, granularity=tensor, ranges=activation"):
        cases(["litert", "openvino"], ["float"], ["tensor"], ["activation"], baseline=True)


def test_a_misspelt_value_is_an_error_even_beside_a_good_one():
    with pytest.raises(OptionError, match="flaot"):
        cases(["litert"], ["float", "flaot"], ["channel"], [], baseline=False)
    with pytest.raises(OptionError, match="mes"):
        cases(["openvino"], ["float"], ["channel"], ["minmax", "mes"], baseline=False)


def test_a_step_gives_back_its_result_and_its_memory(tmp_path):
    result, peak = bench._step("latency", {"paths": [], "threads": 1}, tmp_path / "new")
    assert result == {"milliseconds": []}
    assert peak > 5e6
    assert (tmp_path / "new" / "latency.log").is_file()


def test_a_step_that_fails_names_its_last_line_and_the_log(tmp_path):
    with pytest.raises(WorkerError) as caught:
        bench._step("latency", {"paths": ["x.bin"]}, tmp_path)
    message, log = str(caught.value), tmp_path / "latency.log"
    assert message.startswith("latency failed: TypeError: ")
    assert message.endswith(f"(log: {log})")
    assert "\n" not in message
    assert "Traceback" in log.read_text()
    assert isinstance(caught.value, EdgeQuantError)


@pytest.fixture
def silent(tmp_path, monkeypatch):
    """Puts a program that says nothing in Python's place."""

    def put(status):
        program = tmp_path / "silent"
        program.write_text(f"#!/bin/sh\nsleep 0.1\nexit {status}\n")
        program.chmod(0o755)
        monkeypatch.setattr(bench.sys, "executable", str(program))

    return put


def test_a_step_that_dies_without_a_word_names_its_exit_status(tmp_path, silent):
    silent(1)
    with pytest.raises(WorkerError, match=rf"^export failed: exit status 1 \(log: {re.escape(str(tmp_path))}"):
        bench._step("export", {}, tmp_path)


def test_a_step_that_ends_well_without_a_result_has_failed(tmp_path, silent):
    silent(0)
    with pytest.raises(WorkerError, match="exit status 0"):
        bench._step("export", {}, tmp_path)


@pytest.mark.parametrize("depth", ["itself", "grandchild"])
def test_peak_memory_sees_the_memory_of_a_process_and_its_children(depth):
    code = "import time; block = b'x' * 200_000_000; time.sleep(0.5)"
    if depth == "grandchild":
        code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
    process = subprocess.Popen([sys.executable, "-c", code])
    peak = bench.peak_memory(process)
    assert process.returncode == 0
    assert 200e6 < peak < 300e6


def test_peak_memory_takes_a_process_that_has_ended_already(monkeypatch):
    died = []
    monkeypatch.setattr(threading, "excepthook", lambda arguments: died.append(arguments.exc_type))
    process = subprocess.Popen(["true"])
    process.wait()
    assert bench.peak_memory(process) == 0
    assert died == []


@pytest.fixture
def settings(tmp_path):
    model, data = tmp_path / "model.pt", tmp_path / "data.yaml"
    model.write_text("weights")
    data.write_text("path: .")
    return Settings(model, data, (96, 160), "train", fraction=0.5, threads=1)


@pytest.fixture
def steps(monkeypatch):
    """Stands for the worker: calls in order, with accuracies and statistics by path, and failures by format."""
    calls = []
    failing = {}
    found = {}

    def step(name, arguments, folder):
        calls.append((name, arguments))
        wanted = failing.get((name, arguments.get("format")))
        if wanted:
            raise WorkerError(wanted)
        if name == "export":
            return {"path": f"{folder}/file", "seconds": 3.0, "bytes": 2_500_000}, 700_000_000
        if name == "latency":
            return {"milliseconds": [10.0 + index for index in range(len(arguments["paths"]))]}, 0
        if name == "images":
            count = len(arguments["paths"])
            return {"milliseconds": [20.0 + index for index in range(count)], "decoding": [1.0] * count}, 0
        result = {"map": 0.4 if arguments["path"].endswith("model.pt") else 0.3, "map50": 0.5}
        images = found.get(Path(arguments["path"]).name)
        if images is not None:
            Path(arguments["images"]).parent.mkdir(parents=True, exist_ok=True)
            images.save(Path(arguments["images"]))
            result["images"] = arguments["images"]
        return result, 0

    monkeypatch.setattr(bench, "_step", step)
    step.calls, step.failing, step.found = calls, failing, found
    return step


def test_run_fills_the_rows_and_puts_fp32_in_front(settings, steps, tmp_path):
    done = bench.run(settings, [Row("litert", "float", "channel", "activation")], tmp_path / "out", lambda text: None)
    assert done == [
        Row("pytorch", "fp32", map=0.4, map50=0.5, retention=1.0),
        Row("litert", "float", "channel", "activation", 0.3, 0.5, pytest.approx(0.75), 10.0, 2.5, 3.0, 700.0),
    ]


def test_run_compares_what_was_found_in_each_image(settings, steps, tmp_path):
    reference, quantized = random_detections(30, 0), random_detections(30, 0, noise=0.1)
    steps.found |= {"model.pt": reference, "file": quantized}
    original, row = bench.run(settings, [Row("litert", "float")], tmp_path / "out", lambda text: None)
    shift = score_shift(reference, quantized)
    assert (row.f1_float, row.f1, row.threshold_shift, row.score_change) == (
        *(shift.f1_float, shift.f1, shift.threshold_shift, shift.score_change),
    )
    assert row.retention_error == retention(reference, quantized).error > 0
    assert original.retention_error is None
    assert (original.images, row.images) == (30, 30)
    files = [arguments["images"] for name, arguments in steps.calls if name == "validate"]
    assert len(set(files)) == 2, "each file's in its own folder"


def test_run_goes_on_after_a_failed_row_and_times_land_on_the_right_rows(settings, steps, tmp_path):
    steps.failing["export", "tflite"] = "export failed: out of luck"
    rows = cases(["litert", "tflite", "openvino"], ["float"], ["channel"], [], baseline=False)
    told = []
    _, litert, tflite, openvino = bench.run(settings, rows, tmp_path / "out", told.append)
    assert tflite == Row(
        "tflite", "float", "channel", "activation", corrections="all", error="export failed: out of luck"
    )
    assert (litert.latency_ms, openvino.latency_ms) == (10.0, 11.0)
    assert "[2/3] exporting tflite float channel activation all" in told


def test_run_passes_options_only_to_our_exports(settings, steps, tmp_path):
    rows = cases(["litert", "openvino"], ["int8"], ["channel"], [], baseline=True)
    bench.run(settings, rows, tmp_path / "out", lambda text: None)
    exports = [arguments for name, arguments in steps.calls if name == "export"]
    ours = [{key: e[key] for key in ("head", "granularity", "ranges", "corrections") if key in e} for e in exports]
    assert [e["stock"] for e in exports] == [True, False, True, False]
    assert ours == [
        {},
        {"head": "int8", "granularity": "channel", "ranges": "activation", "corrections": "all"},
        {},
        {"head": "int8", "granularity": "channel", "ranges": "activation", "corrections": "all"},
    ]
    assert all((e["imgsz"], e["split"], e["fraction"]) == ([96, 160], "train", 0.5) for e in exports)
    models = {e["model"] for e in exports}
    assert len(models) == 4, "each row's file lies in a folder of its own"
    assert str(settings.model) not in models
    json.dumps(exports)


def test_run_validates_the_reference_and_the_stock_files_without_our_patches(settings, steps, tmp_path):
    bench.run(
        settings, cases(["litert"], ["float"], ["channel"], [], baseline=True), tmp_path / "out", lambda text: None
    )
    assert [arguments["stock"] for name, arguments in steps.calls if name == "validate"] == [True, True, False]


def test_run_times_images_when_asked_to(settings, steps, tmp_path):
    steps.failing["export", "tflite"] = "export failed: out of luck"
    rows = cases(["litert", "tflite", "openvino"], ["float"], ["channel"], [], baseline=True)
    done = bench.run(replace(settings, images=7), rows, tmp_path / "out", lambda text: None)
    (arguments,) = [arguments for name, arguments in steps.calls if name == "images"]
    assert (arguments["count"], arguments["stock"], arguments["threads"]) == (7, [True, False, True, False], 1)
    assert [row.image_ms for row in done] == [None, 20.0, 21.0, None, None, 22.0, 23.0]
    assert done[2].decoding_ms == 1.0


def test_run_takes_the_nms_free_output_of_all_when_asked_to(settings, steps, tmp_path):
    rows = cases(["litert"], ["float"], ["channel"], [], baseline=False)
    for nms_free, expected in ((False, [None, None]), (True, [False, False])):
        steps.calls.clear()
        bench.run(replace(settings, nms_free=nms_free), rows, tmp_path / "out", lambda text: None)
        (reference, *_), (export,) = (
            [arguments for name, arguments in steps.calls if name == step] for step in ("validate", "export")
        )
        assert [reference.get("nms"), export.get("nms")] == expected


def test_run_stops_when_there_is_nothing_to_compare_with(settings, steps, tmp_path):
    steps.failing["validate", None] = "validate failed"
    with pytest.raises(WorkerError, match="validate failed"):
        bench.run(settings, [], tmp_path / "out", lambda text: None)


def test_run_keeps_its_figures_when_timing_fails(settings, steps, tmp_path):
    steps.failing["latency", None] = "latency failed"
    steps.failing["export", "tflite"] = "export failed"
    rows = cases(["litert", "tflite"], ["float"], ["channel"], [], baseline=False)
    reference, litert, tflite = bench.run(settings, rows, tmp_path / "out", lambda text: None)
    assert (litert.map, litert.latency_ms, litert.error) == (0.3, None, "not timed: latency failed")
    assert (reference.error, tflite.error) == (None, "export failed")
