"""The shell command ``yolo-edgequant``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner
from rich.table import Table

from . import series, target_report
from ._version import __version__
from .describe import describe
from .errors import EdgeQuantError, MissingToolError, OptionError
from .options import CHOICES, ExportOptions, choices
from .targets.devices import device, devices

if TYPE_CHECKING:
    from .bench.run import Row, Settings
    from .bench.zoo import Result

app = typer.Typer(
    help="INT8 exports of Ultralytics YOLO models that still detect, for Coral Edge TPU, NXP i.MX8M Plus and Intel.",
    epilog="Try it with nothing at hand: yolo-edgequant demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
console = Console()
if not console.is_terminal:
    console = Console(width=160)  # a table in a file or a pipe keeps all its columns

Listed = Annotated[str, typer.Option(help="Comma-separated.")]


def main() -> None:
    """Run the command; an error of ours is one line and exit status 1."""
    try:
        app()
    except EdgeQuantError as error:
        Console(stderr=True).print(f"[red]error:[/red] {escape(str(error))}", soft_wrap=True)
        raise SystemExit(1) from None


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    """Print the version."""
    if show:
        console.print(__version__)
        raise typer.Exit


def _choices() -> str:
    """The options and their choices, as the help names them."""
    names = [name for name in (*CHOICES, "verify") if name != "target"]
    listed = [f"{name}={'|'.join(map(str, choices(name)))}" for name in names]
    return ", ".join([*listed, "min_retention=NUMBER", "target=NAME"])


# in a table, as arguments are, a narrow terminal would cut the longest list short
@app.command(epilog=f"Our options: {_choices()}. The targets: yolo-edgequant targets.")
def export(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="KEY=VALUE...",
            help="Ultralytics' arguments (model=, format=, data=, imgsz=, split=, fraction=, ...) and our options.",
        ),
    ],
) -> None:
    """Export a checkpoint to an INT8 file; for an Ethos-U, and where vela is installed, compile it, too.

    Examples: yolo-edgequant export model=yolov8n.pt format=tflite data=coco128.yaml head=float

    yolo-edgequant export model=yolov8n.pt target=nxp-imx93 data=coco128.yaml
    """
    from .upstream.models import YOLO, parse_value

    values = _parse(arguments, parse_value)
    model = _model_of(values)
    path = YOLO(model).export(**{"quantize": 8, **values})
    console.print(f"written: {path}", soft_wrap=True)


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def predict(context: typer.Context) -> None:
    """Ultralytics' own 'yolo predict', which reads our files here: yolo-edgequant predict model=FILE source=IMAGES."""
    _yolo("predict", context.args)


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def val(context: typer.Context) -> None:
    """Ultralytics' own 'yolo val', which reads our files here: yolo-edgequant val model=FILE data=YAML."""
    _yolo("val", context.args)


def _yolo(mode: str, arguments: list[str]) -> None:
    from .upstream.models import command

    values = {key: value for key, _, value in (argument.partition("=") for argument in arguments)}
    if not ("model" in values and Path(values["model"]).is_dir()):  # an OpenVINO model's folder
        _model_of(values)
    command([mode, *arguments])


@app.command()
def finetune(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="KEY=VALUE...",
            help="model= and data=; activation=relu6|relu|leaky_relu|hardswish|silu; target=tflite|litert|openvino and "
            "granularity=channel|tensor for quantization-aware training; teacher=, out=, resume=True; and "
            "Ultralytics' training arguments (epochs=, batch=, lr0=, imgsz=, device=, ...).",
        ),
    ],
) -> None:
    """Swap a checkpoint's activations, train it quantization-aware, or both, with the original as teacher.

    Examples: yolo-edgequant finetune model=yolov8n.pt data=my.yaml activation=relu6 epochs=20 out=relu6

    yolo-edgequant finetune model=yolov8n.pt data=my.yaml target=tflite granularity=tensor out=qat
    """
    from . import finetuning
    from .upstream.models import parse_value

    values = _parse(arguments, parse_value)
    model = _model_of(values)
    if "data" not in values:
        raise OptionError("data= is missing, for example data=my.yaml")
    done = finetuning.finetune(model, console=console, **values)
    console.print(done.table())
    console.print(f"written: {done.checkpoint}", soft_wrap=True)


@app.command()
def bench(
    model: Annotated[Path, typer.Argument(help="Float checkpoint (.pt).")],
    data: Annotated[Path, typer.Option(help="Data set YAML, for calibration and validation.")],
    formats: Listed = "litert,tflite,openvino",
    heads: Listed = "float,int8",
    granularity: Listed = "channel",
    ranges: Annotated[str, typer.Option(help="Comma-separated; empty for each format's default.")] = "",
    corrections: Annotated[str, typer.Option(help="Comma-separated; empty for all that there are.")] = "",
    baseline: Annotated[bool, typer.Option("--baseline", help="Add Ultralytics' own export of each format.")] = False,
    imgsz: Annotated[str, typer.Option(help="One number, or height,width.")] = "640",
    calibration_split: Annotated[str, typer.Option(help="Split to calibrate on.")] = "train",
    fraction: Annotated[float, typer.Option(help="Share of that split to calibrate on, above 0 and at most 1.")] = 1.0,
    nms_free: Annotated[bool, typer.Option("--nms-free", help="The NMS-free output of YOLO26 and v10.")] = False,
    images: Annotated[int, typer.Option(help="Validation images to time from image to boxes.")] = 0,
    threads: Annotated[int | None, typer.Option(help="CPU threads of what is timed; all cores if left out.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to keep bench.json, bench.csv and the files in.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown, too.")] = False,
) -> None:
    """Export, validate and time a model in several ways: one table, FP32 of the same run as the measure.

    Example: yolo-edgequant bench yolov8n.pt --data coco.yaml --formats litert,openvino --baseline
    """
    from .bench.run import Settings, cases

    _require_file(model, "model")
    _require_file(data, "data")
    if not 0 < fraction <= 1:
        raise OptionError(f"--fraction {fraction} is not above 0 and at most 1")
    settings = Settings(
        model, data, _size(imgsz), calibration_split, fraction=fraction, nms_free=nms_free, images=images
    )
    if threads is not None:
        settings = replace(settings, threads=threads)
    rows = cases(_list(formats), _list(heads), _list(granularity), _list(ranges), baseline, _list(corrections))
    _bench(settings, rows, out or Path("bench"), markdown)


@app.command()
def zoo(
    file: Annotated[Path, typer.Argument(help="TOML file of models, and of what their files should keep.")],
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Name of a model of it; may be repeated. All without it.")
    ] = None,
    images: Annotated[int, typer.Option(min=0, help="Validation images to time from image to boxes.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of what is timed; all cores without.")] = None,
    out: Annotated[Path, typer.Option(help="Folder to keep the files, logs and drawn images in.")] = Path("zoo"),
    as_json: Annotated[
        Path | None,
        typer.Option("--json", help="File for all of it; models in it that are not measured now stay. OUT/zoo.json."),
    ] = None,
    docs: Annotated[Path | None, typer.Option(help="Page whose tables are to be written anew from that.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables as Markdown, too.")] = False,
) -> None:
    """Bench all models of a file: one table; exit status 1 if a file keeps less than it should.

    Example: yolo-edgequant zoo models.toml --only shapes --json docs/benchmarks.json --docs docs/benchmarks.md
    """
    from .bench import docs_page, models, report, zoo

    entries = models.read(file)
    wanted = models.only(entries, only or ())
    present = models.present(wanted)
    for entry in wanted:
        if entry not in present:
            console.print(escape(f"left out: {entry.name}, since '{entry.missing}' is not there"), soft_wrap=True)
    as_json = as_json or out / "zoo.json"
    kept = zoo.merged(zoo.load(as_json) if as_json.is_file() else [], [], entries)
    if docs is not None:
        docs_page.rewrite(docs, kept)  # a page that cannot be written is said before hours of work
    done: list[Result] = []

    def table(filled: Sequence[Row]) -> Table:
        return report.table_of_models({**{one.name: one.rows for one in done}, present[len(done)].name: filled})

    with _shown(table, report.line) as (tell, show):
        for result in zoo.run_all(present, out, tell, show, threads, images):
            done.append(result)
            kept = zoo.merged(kept, [result], entries)
            zoo.save(kept, as_json)  # at once: what is measured stays, whatever comes of the next one
            if docs is not None:
                docs_page.rewrite(docs, kept)
    rows = {result.name: result.rows for result in done}
    if rows:
        console.print(report.table_of_models(rows))
    if (scores := report.scores_of_models(rows)) is not None:
        console.print(scores)
    if markdown:
        for text in (docs_page.summary(done), *map(docs_page.section, done)):
            typer.echo(f"{text}\n")
    problems = [problem for result in done for problem in result.problems]
    for problem in problems:
        console.print(f"[red]failed:[/red] {escape(problem)}", soft_wrap=True)
    if done:
        console.print(f"written: {as_json}" + (f" and {docs}" if docs is not None else ""), soft_wrap=True)
    if problems:
        raise typer.Exit(1)


@app.command()
def sensitivity(
    model: Annotated[Path, typer.Argument(help="Float checkpoint (.pt).")],
    data: Annotated[Path, typer.Option(help="Data set YAML, for calibration and validation.")],
    format: Annotated[str, typer.Option(help="litert or tflite.")] = "litert",
    head: Annotated[str, typer.Option(help="float, int8 or raw.")] = "float",
    granularity: Annotated[str, typer.Option(help="channel or tensor.")] = "channel",
    imgsz: Annotated[str, typer.Option(help="One number, or height,width.")] = "640",
    split: Annotated[str, typer.Option(help="Split to validate on.")] = "val",
    calibration_split: Annotated[str, typer.Option(help="Split to calibrate on.")] = "train",
    fraction: Annotated[float, typer.Option(help="Share of that split to calibrate on, above 0 and at most 1.")] = 1.0,
    layers: Annotated[bool, typer.Option("--layers", help="Also with each layer in float, one by one.")] = False,
    as_json: Annotated[Path | None, typer.Option("--json", help="File for all of it, for programs.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown, too.")] = False,
) -> None:
    """Show where a .tflite file's last points go: what it would keep with parts in float, with standard errors.

    Example: yolo-edgequant sensitivity yolov8n.pt --data coco.yaml --fraction 0.38 --json sensitivity.json
    """
    _require_file(model, "model")
    _require_file(data, "data")
    if not 0 < fraction <= 1:
        raise OptionError(f"--fraction {fraction} is not above 0 and at most 1")
    from .bench import sensitivity as table

    options = {"head": head, "granularity": granularity}
    settings = table.Settings(model, data, format, _size(imgsz), calibration_split, fraction, split, layers, options)
    rows = table.run(settings, console)
    console.print(table.table(rows), soft_wrap=True)
    if markdown:
        typer.echo(table.markdown(rows))
    if as_json is not None:
        table.save(rows, as_json)
        console.print(f"written: {as_json}", soft_wrap=True)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the drawn images, the files and the table.")] = Path("demo"),
    calibration: Annotated[int, typer.Option(min=1, help="Images to calibrate on.")] = 128,
    validation: Annotated[int, typer.Option(min=1, help="Images to validate on.")] = 200,
) -> None:
    """Show it all on a small detector and on images that are drawn on the spot; needs no file and no network."""
    from .bench.run import Settings, cases
    from .demo.dataset import data_set
    from .demo.train import SIZE, WEIGHTS

    console.print(f"drawing {calibration} images to calibrate on and {validation} to validate on")
    data = data_set(out / "data", calibration, validation, SIZE, seed=1)
    settings = Settings(WEIGHTS, data, (SIZE, SIZE))
    rows = cases(["tflite", "openvino"], ["float", "int8"], ["channel"], [], baseline=True)
    _bench(settings, rows, out, False)


@app.command()
def run(
    model: Annotated[Path, typer.Argument(help="Exported file: .tflite, or an OpenVINO model's folder.")],
    source: Annotated[str, typer.Argument(help="Image, folder of images, video, or a camera's number.")],
    conf: Annotated[float, typer.Option(help="Least score, 0 to 1.")] = 0.25,
    iou: Annotated[float, typer.Option(help="Largest overlap of two objects of a class, 0 to 1.")] = 0.7,
    threads: Annotated[int | None, typer.Option(help="CPU threads; all cores if left out.")] = None,
    delegate: Annotated[str | None, typer.Option(help="edgetpu, vx, or a TFLite delegate's library.")] = None,
    save: Annotated[Path | None, typer.Option(help="Folder for drawn pictures and detections.json.")] = None,
    show: Annotated[bool, typer.Option("--show", help="Show each picture in a window; q ends.")] = False,
) -> None:
    """Find objects with an exported file, without torch and Ultralytics.

    Example: yolo-edgequant run yolov8n_full_integer_quant.tflite pictures --save found
    """
    if find_spec("cv2") is None:
        raise MissingToolError("reading pictures needs OpenCV; install it with: pip install 'yolo-edgequant[run]'")
    from .runtime import Detector
    from .runtime.stream import stream

    detector = Detector(model, conf=conf, iou=iou, threads=threads, delegate=delegate)
    console.print(stream(detector, source, save, show, console))
    if save is not None:
        console.print(f"written: {save / 'detections.json'}", soft_wrap=True)


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="A .tflite file, or an OpenVINO model's folder or .xml; of anybody.")],
    target: Annotated[str | None, typer.Option(help="Device: where operators would run there.")] = None,
    images: Annotated[Path | None, typer.Option(help="Image, or folder: the first ones are run.")] = None,
    count: Annotated[int, typer.Option(min=1, max=64, help="Images to run.")] = 4,
    float_model: Annotated[
        Path | None, typer.Option("--float", help="Its float model: .pt or a float file. Needs --images.")
    ] = None,
    beside: Annotated[Path | None, typer.Option(help="Another file to draw the objects of. Needs --images.")] = None,
    compiling: Annotated[bool, typer.Option("--compile", help="Run the compiler for the target.")] = False,
    accelerator_config: Annotated[str | None, typer.Option(help="Of an Ethos-U, as ethos-u85-256.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Folder for the compiled file.")] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="File for all of it, for programs.")] = None,
    html: Annotated[Path | None, typer.Option(help="File for a page with plots and pictures.")] = None,
) -> None:
    """Look into a quantized file: operators, scales, noise, and what is wrong; exit status 1 if it cannot detect.

    Example: yolo-edgequant inspect yolov8n_full_integer_quant.tflite --target coral-edgetpu
    """
    from .inspection import report
    from .inspection.examine import examine

    if html is not None and find_spec("jinja2") is None:
        raise MissingToolError("--html needs Jinja2; install it with: pip install 'yolo-edgequant[inspect]'")
    inspection = examine(
        file,
        target,
        images,
        count,
        float_model,
        beside,
        compiling or accelerator_config is not None,
        accelerator_config,
        keep,
    )
    console.print(report.tables(inspection), soft_wrap=True)
    if as_json is not None:
        report.save(inspection, as_json)
        console.print(f"written: {as_json}", soft_wrap=True)
    if html is not None:
        from .inspection.page import save

        save(inspection, html)
        console.print(f"written: {html}", soft_wrap=True)
    if inspection.is_broken:
        raise typer.Exit(1)


@app.command()
def patches(
    standalone: Annotated[
        Path | None,
        typer.Option(help="Folder to write the patches to that go upstream: for `git am`, and without this library."),
    ] = None,
) -> None:
    """Print every patch of Ultralytics as a diff against the installed version, or write those that stand alone.

    Example: yolo-edgequant patches --standalone series && git am series/ultralytics/*.patch
    """
    if standalone is None:
        typer.echo(describe())
        return
    for file in series.write(standalone):
        console.print(f"written: {file}", soft_wrap=True)


@app.command()
def doctor(
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="Format whose export has to be possible; may be repeated. Without it all those whose packages are "
            "installed, or else the runtime.",
        ),
    ] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="File for all of it, for programs.")] = None,
) -> None:
    """Show what is installed beside what exports, training and the runtime need; exit status 1 if one is not possible.

    Example: yolo-edgequant doctor --format litert --format openvino
    """
    from .doctor import examine, save, tables

    report = examine()
    failing = report.failing(formats or ())
    console.print(tables(report))
    if as_json is not None:
        save(report, as_json)
        console.print(f"written: {as_json}", soft_wrap=True)
    if failing:
        console.print(
            f"[red]not possible:[/red] {escape(', '.join(purpose.name for purpose in failing))}", soft_wrap=True
        )
        raise typer.Exit(1)


@app.command()
def targets(
    name: Annotated[str | None, typer.Argument(help="Of a target: all that is known of it, with sources.")] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="File for all of it, for programs.")] = None,
) -> None:
    """List the devices that exports can be made for.

    Example: yolo-edgequant targets nxp-imx8mp
    """
    listed = devices() if name is None else [device(name)]
    console.print(target_report.overview(listed) if name is None else target_report.details(listed[0]))
    if as_json is not None:
        target_report.save_devices(listed, as_json)
        console.print(f"written: {as_json}", soft_wrap=True)


@app.command()
def check(
    model: Annotated[Path, typer.Argument(help="Float checkpoint (.pt).")],
    target: Annotated[str, typer.Option(help="Name, of 'yolo-edgequant targets'.")],
    imgsz: Annotated[str, typer.Option(help="One number, or height,width.")] = "640",
    as_json: Annotated[Path | None, typer.Option("--json", help="File for all of it, for programs.")] = None,
) -> None:
    """Tell beforehand what of a model will not go well on a device; exit status 1 if its file would be of no use.

    Example: yolo-edgequant check yolov8n.pt --target coral-edgetpu --imgsz 320
    """
    profile, size = device(target), _size(imgsz)
    _require_file(model, "model")
    from .patches.device_check import Severity, examine
    from .upstream.models import YOLO

    findings = examine(YOLO(model).model, profile, size, ExportOptions())
    if findings:
        console.print(target_report.findings_table(findings))
    else:
        console.print(f"nothing is known against {model.name} on {profile.name}", soft_wrap=True)
    if as_json is not None:
        target_report.save_findings(profile, findings, as_json)
        console.print(f"written: {as_json}", soft_wrap=True)
    if any(finding.severity == Severity.REFUSE for finding in findings):
        raise typer.Exit(1)


@contextmanager
def _shown(
    table: Callable[[Sequence[Row]], Table], line: Callable[[Row], str]
) -> Iterator[tuple[Callable[[str], None], Callable[[Sequence[Row]], None]]]:
    """Two functions, for steps and for rows: on a terminal a table that grows, elsewhere a line for each."""
    with Live(console=console, transient=True) as live:
        so_far: list[Any] = ["", "starting"]

        def refresh() -> None:
            if console.is_terminal:
                live.update(Group(*so_far))

        def tell(step: str) -> None:
            so_far[1] = Spinner("dots", escape(step))
            refresh()
            if not console.is_terminal:
                console.print(step, soft_wrap=True, markup=False)

        def show(filled: Sequence[Row]) -> None:
            so_far[0] = table(filled)
            refresh()
            if not console.is_terminal:
                console.print(line(filled[-1]), soft_wrap=True)

        yield tell, show


def _bench(settings: Settings, rows: list[Row], out: Path, markdown: bool) -> None:
    """Run a bench, its table growing on a terminal, a line for each step and row elsewhere."""
    from .bench import report
    from .bench.run import run

    with _shown(report.table, report.line) as (tell, show):
        done = run(settings, rows, out, tell, show)
    console.print(report.table(done))
    if (scores := report.scores(done)) is not None:
        console.print(scores)
    if markdown:
        typer.echo(report.markdown(done))
    for row in done:
        if row.error:
            console.print(f"[red]{row.format} {row.head}:[/red] {escape(row.error)}", soft_wrap=True)
    as_json, as_csv = report.save(done, out)
    console.print(f"written: {as_json} and {as_csv}", soft_wrap=True)
    if any(row.error for row in done):
        raise typer.Exit(1)


def _parse(arguments: list[str], typed: Callable[[str], Any]) -> dict[str, Any]:
    """``key=value`` arguments by Ultralytics' own rules of typing.

    Raises:
        OptionError: an argument has no ``=``.
    """
    values = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            raise OptionError(f"{argument!r} is not of the form key=value")
        values[key] = typed(value)
    return values


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _size(text: str) -> tuple[int, int]:
    """``640`` or ``480,640`` as (height, width).

    Raises:
        OptionError: the text is neither.
    """
    try:
        sides = [int(part) for part in _list(text)]
    except ValueError:
        sides = []
    if len(sides) not in {1, 2} or min(sides) <= 0:
        raise OptionError(f"--imgsz {text!r} is neither a number nor height,width")
    return (sides[0], sides[-1])


def _model_of(values: dict[str, Any]) -> str:
    """Take the checkpoint that ``model=`` names.

    Raises:
        OptionError: it is missing, or there is no such file.
    """
    if "model" not in values:
        raise OptionError("model= is missing, for example model=yolov8n.pt")
    model = str(values.pop("model"))
    _require_file(Path(model), "model")
    return model


def _require_file(path: Path, what: str) -> None:
    """Stop early on a missing file, which Ultralytics would go and fetch.

    Raises:
        OptionError: there is no such file.
    """
    if not path.is_file():
        raise OptionError(f"{what} '{path}' not found (looked in {Path.cwd()})")
