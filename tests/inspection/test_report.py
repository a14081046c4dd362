import json

import pytest
from rich.console import Console

from yolo_edgequant.inspection import report
from yolo_edgequant.inspection.compiled import Compiled, Fallback, Heavy
from yolo_edgequant.inspection.examine import examine
from yolo_edgequant.inspection.noise import Noise


def text(inspection):
    console = Console(width=200, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(report.tables(inspection), soft_wrap=True)
    return capture.get()


def test_the_json_has_every_tensor_and_operator(files):
    inspection = examine(files["int8"], "coral-edgetpu")
    values = json.loads(report.as_json(report.as_dict(inspection)))
    model = inspection.model
    assert [tensor["name"] for tensor in values["tensors"]] == [tensor.name for tensor in model.tensors]
    for tensor, row in zip(model.tensors, values["tensors"], strict=True):
        assert row["scales"] == pytest.approx(tensor.scales.tolist(), rel=1e-5)
        assert row["zero_points"] == tensor.zero_points.tolist()
    assert [row["kind"] for row in values["operators"]] == [node.kind for node in model.nodes]
    assert sum(values["target"]["places"].values()) == len(model.nodes)
    assert values["head"]["spread"] == pytest.approx(inspection.spread.activations, rel=1e-5)
    assert values["memory"]["limit"] == 8_000_000
    assert values["findings"] == []


def test_it_is_written(files, tmp_path):
    path = tmp_path / "deep" / "report.json"
    report.save(examine(files["raw"]), path)
    values = json.loads(path.read_text())
    assert (values["schema"], values["target"], values["images"]) == (report.SCHEMA, None, None)


def test_the_tables_name_what_matters(files, decoder):
    ours = text(examine(files["int8"], "coral-edgetpu"))
    assert "2 partition(s) on the Edge TPU" in ours
    assert "SOFTMAX" in ours
    assert "nothing is known against this file" in ours
    broken = text(examine(decoder(0.05, 0.25, 0.25)))
    errors = [line for line in broken.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "share one 8-bit scale" in errors[0]


def test_a_compilers_word(files):
    from dataclasses import replace

    compiled = Compiled(
        "vela 5",
        "ethos-u65-256",
        9,
        1,
        cycles=2e6,
        per_second=50.0,
        memory={"sram_memory_used": 1024},
        fallbacks=(Fallback("SOFTMAX", "why [not]", 1),),
        heaviest=(Heavy("CONV_2D", 0.5),),
    )
    inspection = replace(examine(files["raw"]), compiled=(compiled,))
    shown = text(inspection)
    assert "9 of 10 on the accelerator (90.0%)" in shown
    assert "2.0 million cycles, 50.0 images a second (what is on the CPU is not counted)" in shown
    assert "1 SOFTMAX: why [not]" in shown
    values = json.loads(report.as_json(report.as_dict(inspection)))["compilers"][0]
    assert (values["cycles"], values["share"], values["file"]) == (2e6, 0.9, None)


def test_a_log_gets_plain_text_as_wide_as_the_terminal(files, monkeypatch):
    inspection = examine(files["raw"], "nxp-imx93")
    monkeypatch.setenv("COLUMNS", "70")
    shown = report.as_text(inspection)
    assert "\x1b" not in shown
    assert max(map(len, shown.splitlines())) <= 70
    assert shown.endswith("nothing is known against this file")
    monkeypatch.setenv("COLUMNS", "300")
    assert max(map(len, report.as_text(inspection).splitlines())) > 70


def test_the_worst_by_channel_come_first():
    rows = (Noise(1, 1, 30.0, 0.1), Noise(2, 2, 5.0, 0.9), Noise(3, 3, 4.0, 0.9))
    assert [row.tensor for row in report.worst(rows)] == [1, 3, 2]


def test_without_a_float_model_it_says_what_is_needed(files, pictures):
    assert "give --float CHECKPOINT.pt" in text(examine(files["int8"], images=pictures, count=1))
