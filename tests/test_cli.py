import json
import sys
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

import yolo_edgequant
from yolo_edgequant import cli
from yolo_edgequant.bench import run as bench
from yolo_edgequant.bench.run import Row
from yolo_edgequant.errors import OptionError
from yolo_edgequant.upstream import REGISTRY

FULL = {"map": 0.5, "map50": 0.6, "retention": 0.9, "latency_ms": 1.0, "size_mb": 1.0, "export_s": 1.0, "peak_mb": 9.0}


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Runs the console script's function in an empty folder; exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["yolo-edgequant", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code or 0, *capsys.readouterr()

    return call


@pytest.fixture
def files(tmp_path):
    model, data = tmp_path / "model.pt", tmp_path / "data.yaml"
    model.write_text("")
    data.write_text("")
    return model, data


@pytest.fixture
def ran(monkeypatch):
    """Stands for the bench: what it was called with; `outcome` is merged into each row."""
    seen = {"outcome": FULL}

    def run(settings, rows, folder, report):
        report("at work")
        seen.update(settings=settings, rows=rows, folder=folder)
        return [Row(row.format, row.head, row.granularity, row.ranges, **seen["outcome"]) for row in rows]

    monkeypatch.setattr(bench, "run", run)
    return seen


def test_help_names_every_command():
    result = CliRunner().invoke(cli.app, ["--help"])
    assert result.exit_code == 0
    names = {command.name or command.callback.__name__ for command in cli.app.registered_commands}
    assert names == {"export", "bench", "demo", "patches", "run", "finetune"}
    assert all(f" {name} " in result.stdout for name in names)


@pytest.mark.parametrize("name", ["export", "bench", "demo", "patches", "run", "finetune"])
def test_every_command_has_help_of_its_own(name):
    result = CliRunner().invoke(cli.app, [name, "--help"])
    assert result.exit_code == 0
    assert f"yolo-edgequant {name}" in result.stdout or f" {name} " in result.stdout
    assert result.stderr == ""


def test_version(command):
    assert command("--version") == (0, f"{yolo_edgequant.__version__}\n", "")


def test_no_arguments_shows_the_help():
    assert "Usage" in CliRunner().invoke(cli.app, []).output


def test_an_unknown_command_is_refused(command):
    code, _, err = command("exprot")
    assert code == 2
    assert "exprot" in err


def test_export_without_a_model(command):
    code, out, err = command("export", "format=tflite")
    assert (code, out) == (1, "")
    assert err == "error: model= is missing, for example model=yolov8n.pt\n"


def test_export_with_an_argument_that_is_no_pair(command):
    code, out, err = command("export", "model=model.pt", "tflite")
    assert (code, out) == (1, "")
    assert err == "error: 'tflite' is not of the form key=value\n"


def test_export_of_a_missing_model_fetches_nothing(command, tmp_path):
    code, out, err = command("export", "model=yolov8n.pt", "format=tflite")
    assert (code, out) == (1, "")
    assert err.startswith("error: model 'yolov8n.pt' not found (looked in")
    assert list(tmp_path.iterdir()) == []


def test_export_hands_the_typed_arguments_to_ultralytics(command, files, monkeypatch):
    import ultralytics

    seen = {}

    def model(path):
        return SimpleNamespace(export=lambda **arguments: seen.update(path=path, **arguments) or "model_int8.tflite")

    monkeypatch.setattr(ultralytics, "YOLO", model)
    code, out, err = command("export", "model=model.pt", "format=litert", "head=float", "imgsz=[96, 160]", "nms=False")
    assert (code, err) == (0, "")
    assert out == "written: model_int8.tflite\n"
    assert seen == {
        "path": "model.pt",
        "quantize": 8,
        "format": "litert",
        "head": "float",
        "imgsz": [96, 160],
        "nms": False,
    }


def test_bench_with_missing_files(command, files):
    model, data = files
    assert command("bench", "other.pt", "--data", data)[2].startswith("error: model 'other.pt' not found")
    code, _, err = command("bench", model, "--data", "other.yaml")
    assert code == 1
    assert err.startswith("error: data 'other.yaml' not found")


def test_bench_needs_data(command, files):
    code, _, err = command("bench", files[0])
    assert code == 2
    assert "--data" in err


@pytest.mark.parametrize("size", ["wide", "", "0", "-1", "640,0", "1,2,3", "640.5"])
def test_bench_with_a_bad_size(command, files, size):
    code, _, err = command("bench", files[0], "--data", files[1], "--imgsz", size)
    assert code == 1
    assert err == f"error: --imgsz {size!r} is neither a number nor height,width\n"


@pytest.mark.parametrize("fraction", ["0", "-0.5", "1.5", "nan"])
def test_bench_with_a_bad_fraction_does_no_work(command, files, ran, fraction):
    code, _, err = command("bench", files[0], "--data", files[1], f"--fraction={fraction}")
    assert code == 1
    assert err == f"error: --fraction {float(fraction)} is not above 0 and at most 1\n"
    assert "rows" not in ran


@pytest.mark.parametrize(("text", "size"), [("640", (640, 640)), ("480,640", (480, 640)), (" 480 , 640 ", (480, 640))])
def test_bench_reads_the_size_as_height_and_width(command, files, ran, text, size):
    assert command("bench", files[0], "--data", files[1], "--imgsz", text)[0] == 0
    assert ran["settings"].imgsz == size


def test_bench_with_an_unknown_format_does_no_work(command, files, ran):
    code, _, err = command("bench", files[0], "--data", files[1], "--formats", "litert,onnx")
    assert code == 1
    assert err.startswith("error: format 'onnx' is not one that bench can run")
    assert "rows" not in ran


def test_bench_passes_its_options_on_and_saves_the_table(command, files, ran, tmp_path):
    code, out, _ = command(
        *("bench", files[0], "--data", files[1], "--formats", "litert, openvino", "--heads", "float", "--baseline"),
        *("--calibration-split", "val", "--fraction", "0.25", "--out", tmp_path / "kept", "--markdown"),
    )
    assert code == 0
    settings = ran["settings"]
    assert (settings.model, settings.data, settings.calibration_split, settings.fraction) == (*files, "val", 0.25)
    assert [(row.format, row.head) for row in ran["rows"]] == [
        ("litert", "stock"),
        ("litert", "float"),
        ("openvino", "stock"),
        ("openvino", "float"),
    ]
    assert ran["folder"] == tmp_path / "kept"
    assert len(json.loads((tmp_path / "kept" / "bench.json").read_text())) == 4
    assert "at work" in out
    assert "| litert | float | channel | activation | 0.5000 |" in out


def test_bench_with_a_failed_row_prints_why_saves_and_exits_with_1(command, files, ran, tmp_path):
    ran["outcome"] = {"error": "export failed: no [bold]luck[/bold]"}
    code, out, _ = command("bench", files[0], "--data", files[1], "--formats", "litert", "--heads", "float")
    assert code == 1
    assert "litert float: export failed: no [bold]luck[/bold]" in out
    assert json.loads((tmp_path / "bench" / "bench.json").read_text())[0]["error"] == ran["outcome"]["error"]


def test_patches_prints_a_diff_of_every_patch(command):
    code, out, _ = command("patches")
    assert code == 0
    assert out.strip() == yolo_edgequant.describe().strip()
    assert out.count("\n+++ b/ultralytics/") == len({patch.module for patch in REGISTRY.patches})


def test_an_error_shows_square_brackets_as_they_are(command):
    assert "model '[bold]x.pt' not found" in command("export", "model=[bold]x.pt")[2]


def test_errors_of_others_are_not_hidden(monkeypatch):
    def fail():
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_a_long_error_is_still_one_line(monkeypatch, capsys):
    def fail():
        raise OptionError("what is wrong, the value seen, what to do, " * 5)

    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    out, err = capsys.readouterr()
    assert (stopped.value.code, out) == (1, "")
    assert len(err.splitlines()) == 1


def test_finetune_passes_its_arguments_on_and_shows_the_table(command, files, monkeypatch):
    from yolo_edgequant.training import finetune as training

    seen = {}

    def run(model, console, **values):
        seen.update(model=model, **values)
        return training.FineTuned(tmp, "relu6", None, None, 0.8, 0.2, 0.6, 0.76, 10, 61.2, 0)

    model, tmp = files[0], files[0].parent / "best.pt"
    monkeypatch.setattr(training, "finetune", run)
    code, out, err = command("finetune", f"model={model}", "data=my.yaml", "epochs=20", "teacher=big.pt", "resume=True")
    assert (code, err) == (0, "")
    assert seen == {"model": str(model), "data": "my.yaml", "epochs": 20, "teacher": "big.pt", "resume": True}
    assert "95.0%" in out
    assert f"written: {tmp}" in out


def test_finetune_says_what_is_missing(command, files):
    assert command("finetune", "data=my.yaml")[2].startswith("error: model= is missing")
    assert command("finetune", f"model={files[0]}")[2].startswith("error: data= is missing")
