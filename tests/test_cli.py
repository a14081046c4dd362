import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

import yolo_edgequant
from yolo_edgequant import cli
from yolo_edgequant.bench import run as bench
from yolo_edgequant.bench.run import Row
from yolo_edgequant.errors import OptionError
from yolo_edgequant.options import NAMES, Target, choices
from yolo_edgequant.patches import REGISTRY
from yolo_edgequant.processes import environment

FULL = {"map": 0.5, "map50": 0.6, "retention": 0.9, "latency_ms": 1.0, "size_mb": 1.0, "export_s": 1.0, "peak_mb": 9.0}
COMMANDS = ["export", "predict", "val", "finetune", "bench", "zoo", "sensitivity", "demo", "run"]
COMMANDS += ["inspect", "patches", "doctor", "targets", "check"]


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
    calls = {"outcome": FULL}

    def run(settings, rows, folder, report, show):
        report("at work")
        calls.update(settings=settings, rows=rows, folder=folder)
        done = []
        for row in rows:
            done.append(Row(row.format, row.head, row.granularity, row.ranges, **calls["outcome"]))
            show(done)
        return done

    monkeypatch.setattr(bench, "run", run)
    return calls


def help_of(*arguments, width=80):
    """What `--help` prints on a terminal of that width."""
    env = {"COLUMNS": str(width)}
    result = CliRunner().invoke(cli.app, [*arguments, "--help"], env=env, prog_name="yolo-edgequant")
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def test_help_lists_exactly_the_commands():
    panel = help_of().partition("─ Commands ─")[2]
    listed = re.findall(r"^│ ([a-z]\S*) ", panel, re.MULTILINE)
    assert listed == COMMANDS
    assert [command.name or command.callback.__name__ for command in cli.app.registered_commands] == COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_of_its_own(name):
    lines = [line.strip() for line in help_of(name).splitlines()]
    (usage,) = [line for line in lines if line.startswith("Usage: ")]
    assert usage.startswith(f"Usage: yolo-edgequant {name} [OPTIONS]")
    callbacks = {command.name or command.callback.__name__: command.callback for command in cli.app.registered_commands}
    assert " ".join(callbacks[name].__doc__.partition("\n\n")[0].split()) in " ".join(lines)


@pytest.mark.parametrize("width", [64, 80, 200])
def test_the_help_of_export_names_every_option_and_every_choice(width):
    words = " ".join(help_of("export", width=width).split())
    listed = words.partition("Our options: ")[2].partition(". ")[0].split(", ")
    options = {name: values for name, _, values in (option.partition("=") for option in listed)}
    assert (options.pop("min_retention"), options.pop("target")) == ("NUMBER", "NAME")
    assert options == {name: "|".join(str(choice) for choice in choices(name)) for name in {*options}}
    assert {*options, "min_retention", "target"} == NAMES


def test_version(command):
    assert command("--version") == (0, f"{yolo_edgequant.__version__}\n", "")


def test_no_arguments_shows_the_help():
    assert "Usage" in CliRunner().invoke(cli.app, []).output


def test_an_unknown_command_is_refused(command):
    code, out, err = command("exprot")
    assert (code, out) == (2, "")
    assert "No such command 'exprot'" in err


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
    from yolo_edgequant.upstream import models

    calls = {}

    def model(path):
        return SimpleNamespace(export=lambda **arguments: calls.update(path=path, **arguments) or "model_int8.tflite")

    monkeypatch.setattr(models, "YOLO", model)
    code, out, err = command("export", "model=model.pt", "format=litert", "head=float", "imgsz=[96, 160]", "nms=False")
    assert (code, err) == (0, "")
    assert out == "written: model_int8.tflite\n"
    assert calls == {
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
    lines = [line.split(", ")[:2] for line in out.splitlines() if ", mAP50-95 0.5000, " in line]
    assert lines == [["  litert", "stock"], ["  litert", "float"], ["  openvino", "stock"], ["  openvino", "float"]]


@pytest.fixture
def measured(monkeypatch):
    """Stands for the measuring: the settings that it was called with."""
    from yolo_edgequant.bench import sensitivity

    calls = []

    def run(settings, console):
        calls.append(settings)
        return [sensitivity.Row(sensitivity.AS_IT_IS, "", 0.31, 0.987, 0.003)]

    monkeypatch.setattr(sensitivity, "run", run)
    return calls


def test_sensitivity_passes_its_options_on_and_saves_the_table(command, files, measured, tmp_path):
    code, out, _ = command(
        *(
            "sensitivity",
            files[0],
            "--data",
            files[1],
            "--format",
            "tflite",
            "--head",
            "raw",
            "--granularity",
            "tensor",
        ),
        *("--imgsz", "320,640", "--split", "test", "--calibration-split", "val", "--fraction", "0.25", "--layers"),
        *("--json", tmp_path / "kept" / "rows.json", "--markdown"),
    )
    assert code == 0
    (settings,) = measured
    assert (settings.model, settings.data, settings.format, settings.imgsz) == (*files, "tflite", (320, 640))
    assert (settings.split, settings.calibration_split, settings.fraction) == ("test", "val", 0.25)
    assert (settings.by_layer, settings.options) == (True, {"head": "raw", "granularity": "tensor"})
    assert "| all | the file as it is | 0.3100 | 98.7% | 0.30 | - | - |" in out
    assert json.loads((tmp_path / "kept" / "rows.json").read_text())[0]["map"] == 0.31


def test_sensitivity_with_missing_files_or_a_bad_fraction_does_no_work(command, files, measured):
    assert command("sensitivity", "other.pt", "--data", files[1])[2].startswith("error: model 'other.pt' not found")
    assert command("sensitivity", files[0], "--data", "other.yaml")[2].startswith("error: data 'other.yaml' not found")
    assert "--fraction 0.0 is not" in command("sensitivity", files[0], "--data", files[1], "--fraction=0")[2]
    assert measured == []


def test_bench_with_a_failed_row_prints_why_saves_and_exits_with_1(command, files, ran, tmp_path):
    ran["outcome"] = {"error": "export failed: no [bold]luck[/bold]"}
    code, out, _ = command("bench", files[0], "--data", files[1], "--formats", "litert", "--heads", "float")
    assert code == 1
    assert "litert float: export failed: no [bold]luck[/bold]" in out
    assert json.loads((tmp_path / "bench" / "bench.json").read_text())[0]["error"] == ran["outcome"]["error"]


@pytest.fixture
def models(tmp_path):
    """A file of two models, of which the second is optional and not there."""
    (tmp_path / "one.pt").touch()
    text = '[{0}]\ncheckpoint = "{0}.pt"\ntask = "detect"\ndata = "shapes"\noptional = {1}\n'
    keeps = "[{0}.keeps]\ntflite.float.channel = 90\n"
    texts = [(text + keeps).format(name, optional) for name, optional in (("one", "false"), ("two", "true"))]
    (tmp_path / "models.toml").write_text("".join(texts))
    return tmp_path / "models.toml"


@pytest.fixture
def measured_models(monkeypatch):
    """Stands for the measuring of models: what it was called with, and the result by name."""
    from tests.bench.test_zoo import RESULT
    from yolo_edgequant.bench import zoo

    calls = {"result": RESULT}

    def run_all(entries, folder, report, show, threads, images):
        calls.update(names=[entry.name for entry in entries], folder=folder, threads=threads, images=images)
        for entry in entries:
            report(f"{entry.name}: at work")
            show(calls["result"].rows)
            yield replace(calls["result"], name=entry.name)

    monkeypatch.setattr(zoo, "run_all", run_all)
    return calls


def test_zoo_measures_what_is_there_and_writes_results_and_page(command, models, measured_models, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- bench: one -->\n<!-- end -->\n<!-- bench: two -->\n<!-- end -->\n")
    code, out, err = command("zoo", models, "--docs", "page.md", "--threads", 2, "--images", 5, "--markdown")
    assert (code, err) == (0, "")
    expected = {"names": ["one"], "folder": Path("zoo"), "threads": 2, "images": 5}
    assert {key: measured_models[key] for key in expected} == expected
    lines = out.splitlines()
    assert lines[0] == f"left out: two, since '{tmp_path / 'two.pt'}' is not there"
    assert "one: at work" in lines
    assert len([line for line in lines if line.startswith("│ one ")]) == 2
    assert "| pytorch | fp32 | - | mAP50-95 0.8000 |" in lines
    assert lines[-1] == "written: zoo/zoo.json and page.md"
    assert "| tflite | float | channel | activation | 0.7900 |" in page.read_text()
    assert page.read_text().count("Not measured yet.") == 1
    assert list(json.loads((tmp_path / "zoo" / "zoo.json").read_text())) == ["one"]


def test_zoo_picks_models_and_leaves_the_results_of_others(command, models, measured_models, tmp_path):
    (tmp_path / "two.pt").touch()
    assert command("zoo", models, "--json", "all.json")[0] == 0
    measured_models["result"] = replace(measured_models["result"], validated=7)
    assert command("zoo", models, "--json", "all.json", "--only", "two")[0] == 0
    assert measured_models["names"] == ["two"]
    results = json.loads((tmp_path / "all.json").read_text())
    assert {name: result["validated"] for name, result in results.items()} == {"one": 40, "two": 7}


def test_zoo_exits_with_1_if_a_file_keeps_too_little_or_failed(command, models, measured_models, tmp_path):
    original, good = measured_models["result"].rows
    for row, said in (
        (replace(good, retention=0.9), "failed: one, tflite float channel: keeps 90.00% ± 0.40%, and should 98.50%"),
        (replace(good, error="no [bold]luck[/bold]"), "failed: one, tflite float channel: no [bold]luck[/bold]"),
    ):
        measured_models["result"] = replace(measured_models["result"], rows=(original, row))
        code, out, err = command("zoo", models)
        assert (code, err) == (1, "")
        assert out.splitlines()[-2:] == [said, "written: zoo/zoo.json"]
        assert json.loads((tmp_path / "zoo" / "zoo.json").read_text())["one"]["rows"][1]["error"] == row.error


def test_zoo_says_in_one_line_what_is_wrong_before_any_work(command, models, measured_models, tmp_path):
    text = models.read_text()
    broken = {
        "models.toml, one: unknown key 'tsak'": text.replace("task", "tsak = 1\ntask", 1),
        "one: 'none.pt' not found; paths are relative to the TOML file": text.replace("one.pt", "none.pt", 1),
    }
    for said, content in broken.items():
        models.write_text(content)
        code, out, err = command("zoo", "models.toml")
        assert (code, out, len(err.splitlines())) == (1, "", 1)
        assert err.startswith(f"error: {said}")
    models.write_text(text)
    assert command("zoo", "none.toml")[2].startswith("error: models 'none.toml' not found (looked in ")
    assert command("zoo", models, "--only", "three")[2] == "error: --only 'three' is not one of one, two\n"
    assert command("zoo", models, "--docs", "none.md")[2].startswith("error: page 'none.md' not found")
    (tmp_path / "old.json").write_text("[]")
    assert command("zoo", models, "--json", "old.json")[2].startswith(
        "error: 'old.json' has no results of this release"
    )
    assert "names" not in measured_models


def test_zoo_with_nothing_but_optional_models_that_are_missing_is_no_failure(command, models, measured_models):
    code, out, err = command("zoo", models, "--only", "two")
    assert (code, err, len(out.splitlines())) == (0, "", 1)


def test_patches_prints_a_diff_of_every_patch(command):
    code, out, _ = command("patches")
    assert code == 0
    assert out.strip() == yolo_edgequant.describe().strip()
    assert out.count("\n+++ b/ultralytics/") == len({patch.module for patch in REGISTRY._applicable()})


def test_doctor_prints_and_saves_what_is_here(command, tmp_path):
    code, out, err = command("doctor", "--format", "openvino", "--format", "litert", "--json", "out/doctor.json")
    assert (code, err) == (0, "")
    assert re.search(r"^│ nncf +│ \d", out, re.MULTILINE)
    assert re.search(r"^│ openvino +│ yes ", out, re.MULTILINE)
    assert out.splitlines()[-1] == "written: out/doctor.json"
    assert "not possible" not in out
    purposes = json.loads((tmp_path / "out" / "doctor.json").read_text())["purposes"]
    assert {purpose["name"] for purpose in purposes if purpose["possible"]} >= {"openvino", "litert", "finetune"}


def test_doctor_exits_with_1_if_what_is_asked_for_is_not_possible(command, monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    code, out, err = command("doctor", "--format", "openvino", "--format", "edgetpu", "--json", "doctor.json")
    assert (code, err) == (1, "")
    assert re.search(r"^│ edgetpu +│ no ", out, re.MULTILINE)
    assert out.splitlines()[-2:] == ["written: doctor.json", "not possible: edgetpu"]
    assert command("doctor")[0] == 0


def test_doctor_refuses_an_unknown_format(command, tmp_path):
    code, out, err = command("doctor", "--format", "onnx", "--json", "doctor.json")
    assert (code, out) == (1, "")
    assert err == "error: --format 'onnx' is not one of litert, tflite, edgetpu, saved_model, openvino\n"
    assert list(tmp_path.iterdir()) == []


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
    from yolo_edgequant import finetuning

    calls = {}

    def run(model, console, **values):
        calls.update(model=model, **values)
        return finetuning.FineTuned(best, "relu6", None, None, 0.8, 0.2, 0.6, 0.76, 10, 61.2, 0)

    model, best = files[0], files[0].parent / "best.pt"
    monkeypatch.setattr(finetuning, "finetune", run)
    code, out, err = command("finetune", f"model={model}", "data=my.yaml", "epochs=20", "teacher=big.pt", "resume=True")
    assert (code, err) == (0, "")
    assert calls == {"model": str(model), "data": "my.yaml", "epochs": 20, "teacher": "big.pt", "resume": True}
    assert "95.0%" in out
    assert f"written: {best}" in out


def test_finetune_says_what_is_missing(command, files):
    assert command("finetune", "data=my.yaml")[2].startswith("error: model= is missing")
    assert command("finetune", f"model={files[0]}")[2].startswith("error: data= is missing")


@pytest.mark.parametrize("name", ["predict", "val"])
def test_predict_and_val_hand_their_arguments_to_ultralytics(command, files, monkeypatch, name, tmp_path):
    from yolo_edgequant.upstream import models

    calls = []
    monkeypatch.setattr(models, "command", calls.append)
    (tmp_path / "model_openvino_model").mkdir()
    for model in (files[0], "model_openvino_model"):
        assert command(name, f"model={model}", "imgsz=160", "--half", "detect", "save_txt")[0] == 0
        assert calls.pop() == [name, f"model={model}", "imgsz=160", "--half", "detect", "save_txt"]


@pytest.mark.parametrize("name", ["predict", "val"])
def test_predict_and_val_fetch_no_model(command, monkeypatch, name, tmp_path):
    from yolo_edgequant.upstream import models

    monkeypatch.setattr(models, "command", lambda arguments: pytest.fail("upstream would fetch one"))
    code, out, err = command(name, "model=yolov8n.tflite", "imgsz=160")
    assert (code, out) == (1, "")
    assert err == f"error: model 'yolov8n.tflite' not found (looked in {tmp_path})\n"
    assert command(name) == (1, "", "error: model= is missing, for example model=yolov8n.pt\n")


def test_ultralytics_command_runs_with_these_arguments_and_not_this_processs(monkeypatch):
    from ultralytics import __version__, cfg

    from yolo_edgequant.upstream.models import command

    monkeypatch.setattr(cfg, "ARGV", cfg.ARGV)  # to be put back
    shown = []
    monkeypatch.setattr(cfg.LOGGER, "info", shown.append)
    command(["version"])
    assert shown == [__version__]


def test_run_says_what_installs_opencv(command, files, monkeypatch):
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    code, out, err = command("run", files[0], ".")
    assert (code, out) == (1, "")
    assert err == "error: reading pictures needs OpenCV; install it with: pip install 'yolo-edgequant[run]'\n"


def test_demo_draws_as_many_images_as_it_is_told_to(command, ran, tmp_path):
    code, out, _ = command("demo", "--calibration", 3, "--validation", 2)
    assert code == 0
    assert out.startswith("drawing 3 images to calibrate on and 2 to validate on\n")
    images = tmp_path / "demo" / "data" / "images"
    assert [len(list((images / split).iterdir())) for split in ("train", "val")] == [3, 2]
    assert (ran["settings"].data, ran["settings"].imgsz) == (Path("demo/data/shapes.yaml"), (160, 160))
    heads = ["stock", "float", "int8"]
    assert [(row.format, row.head) for row in ran["rows"]] == [
        (name, head) for name in ("tflite", "openvino") for head in heads
    ]


@pytest.mark.parametrize("option", ["--calibration", "--validation"])
def test_demo_without_images_is_refused(command, option):
    code, _, err = command("demo", option, 0)
    assert code == 2
    assert option in err


def yolo_edgequant_command(folder, *arguments):
    """Run the console script in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", "from yolo_edgequant.cli import main; main()", *map(str, arguments)],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory, shapes_data):
    """A folder with the embedded detector as a raw file, which upstream alone cannot read; the export's process."""
    from yolo_edgequant.demo.train import WEIGHTS

    folder = tmp_path_factory.mktemp("exported")
    shutil.copy(WEIGHTS, folder)
    arguments = ("model=shapes.pt", "format=tflite", "head=raw", f"data={shapes_data}", "imgsz=160", "split=train")
    return folder, yolo_edgequant_command(folder, "export", *arguments)


@pytest.mark.export
def test_export_writes_the_file_and_names_it(exported):
    folder, run = exported
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "written: shapes_full_integer_quant.tflite"
    assert (folder / "shapes_full_integer_quant.tflite").is_file()


@pytest.mark.export
def test_the_lines_that_an_export_prints_run_as_they_are(exported, shapes_data):
    folder, run = exported
    lines = re.findall(r"^(?:Predict|Validate): +(yolo-edgequant (?:predict|val) .*\S)", run.stdout, re.MULTILINE)
    predict, val = (shlex.split(line)[1:] for line in lines)
    assert predict[0] == "predict"
    done = yolo_edgequant_command(folder, *predict, f"source={shapes_data.parent / 'images' / 'val'}", "save=False")
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^image \d+/40 .*: 160x160 \d+ ", done.stdout, re.MULTILINE)) == 40
    assert val[0] == "val"
    val = [f"data={shapes_data}" if argument.startswith("data=") else argument for argument in val]
    done = yolo_edgequant_command(folder, *val, "plots=False")
    assert done.returncode == 0, done.stderr
    (accuracy,) = re.findall(r"^ +all +40 .* (\S+)$", done.stdout, re.MULTILINE)
    assert float(accuracy) > 0.75


@pytest.mark.export
def test_run_reads_what_export_wrote(exported, shapes_data):
    folder, _ = exported
    images = shapes_data.parent / "images" / "val"
    done = yolo_edgequant_command(folder, "run", "shapes_full_integer_quant.tflite", images, "--save", "detections")
    assert done.returncode == 0, done.stderr
    assert len(json.loads((folder / "detections" / "detections.json").read_text())) == 40


@pytest.mark.export
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("export", "model=shapes.pt", "format=tflite", "data=none.yaml"), "none.yaml"),
        (("export", "model=shapes.pt", "format=onnx", "quantize=16", "head=raw"), "head='raw' needs quantize=8"),
        (("val", "model=missing.tflite", "data=none.yaml"), "missing.tflite"),
        (("run", "broken.tflite", "."), "broken.tflite"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_an_error_is_one_line_on_stderr_and_exit_status_1(exported, arguments, message):
    folder, _ = exported
    whole = (folder / "shapes_full_integer_quant.tflite").read_bytes()
    (folder / "broken.tflite").write_bytes(whole[: len(whole) // 2])
    done = yolo_edgequant_command(folder, *arguments)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert message in line


def test_targets_lists_all_and_shows_one(command, tmp_path):
    code, out, err = command("targets")
    assert (code, err) == (0, "")
    assert all(name in out for name in Target)
    code, out, err = command("targets", "nxp-imx8mp", "--json", "target.json")
    assert (code, err) == (0, "")
    assert "op_status.md, 2025-01-07" in out
    assert out.endswith("written: target.json\n")
    assert list(json.loads((tmp_path / "target.json").read_text())) == ["nxp-imx8mp"]


def test_an_unknown_target_is_refused_with_the_list(command, files):
    for arguments in (("targets", "coral"), ("check", files[0], "--target", "coral")):
        code, out, err = command(*arguments)
        assert (code, out) == (1, "")
        assert err.startswith("error: target='coral' is not one of 'coral-edgetpu', 'frigate-edgetpu', ")


def test_check_needs_a_model_that_is_there(command):
    code, out, err = command("check", "yolov8n.pt", "--target", "coral-edgetpu")
    assert (code, out) == (1, "")
    assert err.startswith("error: model 'yolov8n.pt' not found")


@pytest.mark.parametrize(
    ("target", "size", "code", "said"),
    [
        ("nxp-imx93", "160", 0, "nothing is known against shapes.pt on nxp-imx93\n"),
        ("coral-edgetpu", "160,640", 0, "an input of 160 x 640 is over the 320 pixels"),
        ("frigate-edgetpu", "160", 1, "task 'segment' cannot be run there, only 'detect'"),
    ],
)
def test_check_tells_what_it_finds_and_fails_on_a_refusal(command, tmp_path, target, size, code, said):
    from yolo_edgequant.demo.train import WEIGHTS

    checkpoint = Path(__file__).parent / "weights" / "shapes-seg.pt" if code else WEIGHTS
    status, out, err = command("check", checkpoint, "--target", target, "--imgsz", size, "--json", "found.json")
    assert (status, err) == (code, "")
    saved = json.loads((tmp_path / "found.json").read_text())
    assert saved["target"] == target
    texts = [finding["text"] for finding in saved["findings"]]
    assert any(said in text for text in texts) or (texts == [] and out.startswith(said))


def test_inspect_prints_and_saves_what_is_in_a_file(command, detector, tmp_path):
    file = tmp_path / "float.tflite"
    file.write_bytes(detector)
    status, out, _ = command("inspect", file, "--target", "coral-edgetpu", "--json", "a.json", "--html", "a.html")
    assert status == 0
    assert "nothing in it is quantized" in out
    assert "written: a.json" in out
    assert json.loads(Path("a.json").read_text())["file"]["name"] == "float.tflite"
    assert Path("a.html").read_text().startswith("<!doctype html>")


def test_inspect_exits_with_1_if_the_file_cannot_detect(command, detector, monkeypatch, tmp_path):
    from yolo_edgequant.inspection.examine import Inspection

    file = tmp_path / "float.tflite"
    file.write_bytes(detector)
    monkeypatch.setattr(Inspection, "is_broken", True)
    assert command("inspect", file)[0] == 1


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        (None, [], "file 'a.tflite' not found"),
        (b"", [], "is no .tflite file: it has 0 bytes"),
        (b"TFL3" * 9, [], "is damaged or cut off"),
        (b"", ["--target", "toaster"], "target='toaster' is not one of"),
        (b"", ["--float", "b.pt"], "give some with --images DIR"),
    ],
)
def test_inspect_refuses_in_one_line(command, content, arguments, message):
    if content is not None:
        Path("a.tflite").write_bytes(content)
    status, _, err = command("inspect", "a.tflite", *arguments)
    assert status == 1
    assert len(err.strip().splitlines()) == 1
    assert message in err


def test_inspect_says_what_installs_jinja(command, monkeypatch):
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    status, _, err = command("inspect", "a.tflite", "--html", "a.html")
    assert status == 1
    assert "pip install 'yolo-edgequant[inspect]'" in err
