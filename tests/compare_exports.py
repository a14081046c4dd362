"""Does this checkout export the files that another one exports? For changes that are not to change any file.

Usage:
    python tests/compare_exports.py OLD_CHECKOUT [--out FOLDER] [--only litert,tflite,...]

The small models of OLD_CHECKOUT are exported with its package and with the package of this checkout, each side in a
child process of its own, which has the side's checkout as PYTHONPATH and does one export after the other. A second run
with the same --out takes the old side's exports from there, as long as the old package and the libraries are the same.

What is compared:

* ``.tflite``: the model read and packed anew, without its notes for old interpreters, since constants may lie inside
  of the FlatBuffer or behind it, and the metadata behind the model has a date; and the interpreter's outputs for four
  images, bit for bit. Both have to be the same. Files are paired by what they are, not by their names. Of a file that
  changed on purpose that change is checked, and that its mAP50-95 on 40 images is no more than 0.01 lower.
* OpenVINO: the ``.xml`` and ``.bin``; where these differ, mAP50-95 on 40 images, to four digits ("same mAP").
* The metadata: keys under ``edgequant`` that differ are listed; they decide nothing, but a file without any is
  DIFFERENT.

Results are a table, and ``compare.json`` in FOLDER with more of each row. The exit status is 1 if a row is DIFFERENT;
an export that failed is that, too, even if it fails on both sides. --only takes formats, or names of exports as in the
lines that report progress. What the exporters print is in FOLDER/old/log.txt and FOLDER/new/log.txt.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.metadata
import json
import os
import pkgutil
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

HERE = Path(__file__).resolve().parents[1]
SIZE = 160
IMAGES = 4  # of which the interpreters' outputs are compared
VALIDATED = 40
MOST_LOST = 0.01  # mAP50-95 of a file that changed on purpose

LIBRARIES = (
    "ultralytics",
    "torch",
    "litert-torch",
    "ai-edge-litert",
    "ai-edge-quantizer",
    "tensorflow",
    "onnx2tf",
    "openvino",
    "nncf",
)

Verdict = Literal["identical", "same mAP", "changed on purpose", "DIFFERENT"]
STYLES: dict[Verdict, str] = {
    "identical": "green",
    "same mAP": "green",
    "changed on purpose": "yellow",
    "DIFFERENT": "bold red",
}


@dataclass(frozen=True)
class Case:
    """One export.

    Attributes:
        checkpoint: relative to a checkout.
        task: of the checkpoint, and of the data that it is calibrated on.
        arguments: of ``model.export``, beside those that all have.
        activation: swapped into the model before the export.
    """

    checkpoint: str
    task: str
    arguments: dict[str, Any]
    activation: str | None = None

    @property
    def name(self) -> str:
        """Unique, and the name of the export's folder."""
        values = [f"{name}={value}" if isinstance(value, bool) else value for name, value in self.arguments.items()]
        return "-".join([Path(self.checkpoint).stem, *([self.activation] if self.activation else []), *values])

    @property
    def options(self) -> str:
        """The arguments for people, without the format."""
        given = {"activation": self.activation} if self.activation else {}
        given |= {name: value for name, value in self.arguments.items() if name != "format"}
        return " ".join(f"{name}={value}" for name, value in given.items())

    @property
    def validated(self) -> bool:
        """The file's accuracy is measured, since its bytes may differ."""
        return self.arguments["format"] == "openvino" or self.name in ON_PURPOSE


@dataclass
class Row:
    """The comparison of one file of an export.

    Attributes:
        case: name of the export.
        file: what the file is, from its name; both names where they differ.
        verdict: the result.
        bytes: ``same``, or ``differ``.
        outputs: ``same``, or how far they differ; ``-`` where they are not compared.
        mean_ap: mAP50-95 of the old and the new file, where it was measured.
        metadata: keys under ``edgequant`` that differ, with both values.
        notes: what differs, or failed.
    """

    case: Case
    file: str
    verdict: Verdict
    bytes: str = "-"
    outputs: str = "-"
    mean_ap: tuple[float, float] | None = None
    metadata: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def matrix() -> list[Case]:
    """All exports."""
    shapes = "yolo_edgequant/demo/shapes.pt"
    cases: list[Case] = []

    def add(format: str, checkpoint: str = shapes, task: str = "detect", **more: Any) -> None:
        activation = more.pop("activation", None)
        if format in {"tflite", "edgetpu"} and more.get("head") == "float":
            more.setdefault("io", "int8")  # its default depends on the version
        cases.append(Case(checkpoint, task, {"format": format, **more}, activation))

    for format in ("litert", "tflite", "edgetpu"):
        for head in ("int8", "float", "raw"):
            for granularity in ("channel", "tensor"):
                add(format, head=head, granularity=granularity)
    for io in ("uint8", "float"):
        add("tflite", head="int8", io=io)
    add("tflite", head="int8", ranges="minmax")
    for corrections in ("none", "bias", "cells", "equalization", "rounding", "scores"):
        add("tflite", head="int8", granularity="tensor", corrections=corrections)
    # equalisation leaves a model with SiLU as it is
    add("tflite", head="raw", granularity="tensor", corrections="equalization", activation="relu", verify=False)
    add("saved_model")
    for head in ("float", "int8", "raw"):
        add("openvino", head=head)
    for model, task, more in (
        ("shapes-seg", "segment", {}),
        ("shapes-pose", "pose", {}),
        ("shapes-obb", "obb", {}),
        ("shapes26", "detect", {}),
        ("shapes26", "detect", {"nms": False}),
    ):
        for head in ("float", "int8", "raw"):
            add("tflite", f"tests/weights/{model}.pt", task, head=head, granularity="channel", **more)
    return cases


def without_rotation(old: Counter[str], new: Counter[str]) -> bool:
    """The angle of rotated boxes has become the reader's business: the file's sine and cosine are gone."""
    return {"COS", "SIN"} <= old.keys() and not {"COS", "SIN"} & new.keys()


#: Exports that are to differ: how the operators changed, and a text.
ON_PURPOSE: dict[str, tuple[Callable[[Counter[str], Counter[str]], bool], str]] = {
    "shapes-obb-tflite-int8-channel": (without_rotation, "no COS and SIN any more"),
}


# ---------------------------------------------------------------------------------------------------- a side's exports


def fingerprint(checkout: Path) -> str:
    """Of everything that a side's exports depend on: package, checkpoints, libraries and, for OpenVINO, machine."""
    digest = hashlib.sha256()
    for folder, pattern in (("yolo_edgequant", "*.py"), ("yolo_edgequant", "*.pt"), ("tests/weights", "*.pt")):
        for file in sorted((checkout / folder).rglob(pattern)):
            digest.update(f"{file.relative_to(checkout)}\0".encode() + file.read_bytes())
    versions = [f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES]
    digest.update("\n".join([platform.node(), *versions]).encode())
    return digest.hexdigest()


def record_of(folder: Path) -> dict[str, Any]:
    """What :func:`export` noted of an export, empty if it did not come to an end."""
    file = folder / "export.json"
    return json.loads(file.read_text()) if file.is_file() else {}


def is_done(case: Case, out: Path, mark: str) -> bool:
    """An earlier run has exported this from the same code for the old side, and its images are there."""
    record = record_of(out / "old" / case.name)
    wanted = {"fingerprint": mark, "case": asdict(case), "error": None}
    return wanted.items() <= record.items() and data_of(out, case.task).is_file()


def data_of(out: Path, task: str) -> Path:
    """Where the YAML of a task's data set is."""
    return out.resolve() / "data" / task / "shapes.yaml"


def drawn(out: Path, task: str) -> Path:
    """The YAML of a task's data set, drawn if it is not there: by the old side, which exports first."""
    yaml = data_of(out, task)
    if not yaml.is_file():
        folder = importlib.import_module("yolo_edgequant.demo").__path__
        name = next(module.name for module in pkgutil.iter_modules(folder) if module.name in {"draw", "dataset"})
        demo = importlib.import_module(f"yolo_edgequant.demo.{name}")  # its name depends on the version
        demo.data_set(yaml.parent, 24, VALIDATED, SIZE, seed=3, task=task)
    return yaml


def export(case: Case, weights: Path, data: Path, folder: Path) -> dict[str, Any]:
    """Export into a folder with the package on the import path.

    Returns:
        ``seconds`` of the export; ``map`` of the file where it is measured; ``error``, a line, if there is no file.
    """
    from ultralytics import YOLO

    import yolo_edgequant

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    checkpoint = Path(shutil.copy(weights / case.checkpoint, folder))
    start = time.perf_counter()
    record: dict[str, Any] = {"error": None, "map": None}
    try:
        model = YOLO(checkpoint)
        if case.activation is not None:
            yolo_edgequant.swap_activation(model, case.activation)
        try:
            model.export(quantize=8, data=str(data), split="train", imgsz=SIZE, **case.arguments)
        except yolo_edgequant.EdgeQuantError as error:
            # without a compiler for the Edge TPU, the file that it would be given is finished
            is_finished = case.arguments["format"] == "edgetpu" and found(folder)
            if type(error).__name__ != "MissingToolError" or not is_finished:
                raise
        record["seconds"] = round(time.perf_counter() - start, 1)
        if case.validated:
            made = next(folder.glob("*_openvino_model"), None) or found(folder)[0]
            metrics = YOLO(made, task=case.task).val(
                data=str(data),
                imgsz=SIZE,
                batch=1,
                plots=False,
                workers=0,
                rect=False,
                verbose=False,
                project=str(folder / "val"),
            )
            record["map"] = float(metrics.box.map)
    except Exception as error:
        record["error"] = f"{type(error).__name__}: {' '.join(str(error).split())}"
    finally:
        checkpoint.unlink()
    return record


def export_side(out: Path, name: str, weights: Path, cases: list[Case]) -> None:
    """A child's work: all exports of one side, a line on stdout for each; what else is printed goes to a file."""
    side = out / name
    side.mkdir(parents=True, exist_ok=True)
    progress = os.fdopen(os.dup(1), "w", buffering=1)
    with (side / "log.txt").open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    import yolo_edgequant

    checkout = Path(yolo_edgequant.__file__).parents[1]
    if checkout != Path(os.environ["PYTHONPATH"]):
        raise SystemExit(f"yolo_edgequant is that of {checkout}, not of {os.environ['PYTHONPATH']}")
    mark = fingerprint(checkout)
    for number, case in enumerate(cases, 1):
        record = export(case, weights, drawn(out, case.task), side / case.name)
        record |= {"fingerprint": mark, "case": asdict(case)}
        (side / case.name / "export.json").write_text(json.dumps(record, indent=1) + "\n")
        result = record["error"] or f"{record['seconds']} s"
        progress.write(f"{name} {number}/{len(cases)} {case.name}: {result}\n")


def run_side(out: Path, name: str, checkout: Path, weights: Path, cases: list[Case]) -> float:
    """Export with the package of a checkout, in a child process; the seconds that it took."""
    if not cases:
        return 0.0
    start = time.perf_counter()
    command = [sys.executable, "-P", __file__, str(weights), "--out", str(out), "--side", name]
    environment = {
        **os.environ,
        "PYTHONPATH": str(checkout),
        "YOLO_AUTOINSTALL": "False",
        "YOLO_OFFLINE": "True",
    }
    out.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [*command, "--only", ",".join(case.name for case in cases)], env=environment, cwd=out, check=False
    )
    if done.returncode:
        print(f"the {name} side ended with exit status {done.returncode}, see {out / name / 'log.txt'}", flush=True)
    return round(time.perf_counter() - start, 1)


# ------------------------------------------------------------------------------------------------------ the comparison


def found(folder: Path) -> list[Path]:
    """The ``.tflite`` files of an export."""
    return sorted(path for path in folder.rglob("*.tflite") if not path.stem.endswith("_edgetpu"))


def paired(case: Case, old: list[Path], new: list[Path]) -> list[tuple[str, Path | None, Path | None]]:
    """Files that are the same thing, and what that is; None where a side has none.

    Those with the same name belong together, and the one that is left over on each side.
    """
    prefix = f"{Path(case.checkpoint).stem}_"
    ours, theirs = ({path.stem.removeprefix(prefix): path for path in files} for files in (new, old))
    pairs: list[tuple[str, Path | None, Path | None]] = [(tag, theirs[tag], ours[tag]) for tag in theirs if tag in ours]
    gone, added = [tag for tag in theirs if tag not in ours], [tag for tag in ours if tag not in theirs]
    if len(gone) == len(added) == 1:
        return [*pairs, (f"{gone[0]} → {added[0]}", theirs[gone[0]], ours[added[0]])]
    return [*pairs, *((tag, theirs[tag], None) for tag in gone), *((tag, None, ours[tag]) for tag in added)]


def read(path: Path) -> Any:
    """A ``.tflite`` file as an object, its constants wherever they lie."""
    import numpy as np
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils

    model = tfl_flatbuffer_utils.read_model(path.read_bytes())
    for buffer in model.buffers:
        if buffer.data is not None:
            buffer.data = np.frombuffer(bytes(buffer.data), np.uint8)
    for code in model.operatorCodes:  # once more, for interpreters of before 2021
        code.deprecatedBuiltinCode = 0
    for entry in model.metadata or []:
        if entry.name == b"min_runtime_version":
            model.buffers[entry.buffer].data = np.zeros(16, np.uint8)
    return model


def packed(model: Any) -> bytes:
    """A model as a FlatBuffer that depends on nothing but what is in the model."""
    import flatbuffers

    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def operators(model: Any) -> Counter[str]:
    """How often a model has each operator."""
    from ai_edge_litert import schema_py_generated as schema

    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    codes = [code.builtinCode for code in model.operatorCodes]
    return Counter(names[codes[op.opcodeIndex]] for op in model.subgraphs[0].operators)


def explained(old: Any, new: Any) -> list[str]:
    """What differs between two models, as far as it is easily said."""
    before, after = operators(old), operators(new)
    changed = [f"{kind} {before[kind]}→{after[kind]}" for kind in sorted(before | after) if before[kind] != after[kind]]
    if changed:
        return [f"operators: {', '.join(changed)}"]
    tensors, others = old.subgraphs[0].tensors, new.subgraphs[0].tensors
    if len(tensors) != len(others):
        return [f"tensors: {len(tensors)}→{len(others)}"]
    pairs = list(zip(tensors, others, strict=True))
    notes = []

    def count(what: str, value: Callable[[Any, Any], Any]) -> None:
        differing = [one.name for one, other in pairs if value(one, old) != value(other, new)]
        if differing:
            notes.append(f"{what} of {len(differing)} of {len(pairs)} tensors, first …{differing[0].decode()[-40:]}")

    def steps(tensor: Any, _: Any) -> Any:
        quantization = tensor.quantization
        made = (quantization.scale, quantization.zeroPoint) if quantization else ()
        return [None if values is None else [float(value) for value in values] for values in made]

    def constant(tensor: Any, model: Any) -> bytes | None:
        data = model.buffers[tensor.buffer].data
        return None if data is None else data.tobytes()

    count("names", lambda tensor, _: tensor.name)
    count("types or shapes", lambda tensor, _: (tensor.type, [int(length) for length in tensor.shape]))
    count("scales", steps)
    count("constants", constant)
    return notes or ["neither operators nor tensors: their order, options or buffers"]


def outputs_of(path: Path, images: list[Any]) -> list[list[Any]]:
    """The interpreter's outputs for (H, W, 3) uint8 RGB images, as stored, with their value per step."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=path.read_bytes(), num_threads=1)
    interpreter.allocate_tensors()
    (source,) = interpreter.get_input_details()
    made = []
    for image in images:
        values = image[None].astype(np.float32) / 255
        if source["shape"][1] == 3:
            values = np.ascontiguousarray(values.transpose(0, 3, 1, 2))
        if source["dtype"] != np.float32:
            scale, zero = source["quantization"]
            limits = np.iinfo(source["dtype"])
            values = np.clip(np.rint(values / scale) + zero, limits.min, limits.max).astype(source["dtype"])
        interpreter.set_tensor(source["index"], values)
        interpreter.invoke()
        made.append([interpreter.get_tensor(target["index"]) for target in interpreter.get_output_details()])
    return made


def compared_outputs(old: list[list[Any]], new: list[list[Any]]) -> str:
    """``same``, or how far two files' outputs differ."""
    import numpy as np

    kinds = [[[(str(array.dtype), array.shape) for array in arrays] for arrays in made] for made in (old, new)]
    if kinds[0] != kinds[1]:
        listed = [" ".join(f"{dtype}{list(shape)}" for dtype, shape in made[0]) for made in kinds]
        return f"{listed[0]} → {listed[1]}"
    pairs = [pair for images in zip(old, new, strict=True) for pair in zip(*images, strict=True)]
    if all(one.tobytes() == other.tobytes() for one, other in pairs):
        return "same"
    gaps = np.concatenate([np.abs(one.astype(np.float64) - other.astype(np.float64)).ravel() for one, other in pairs])
    return f"{np.mean(gaps != 0):.2%} differ, by {gaps.max():.4g} at most, as stored"


def contract_of(path: Path) -> dict[str, Any]:
    """Our part of a file's metadata, empty if there is none."""
    if path.suffix != ".tflite":
        beside = path.with_name("metadata.json")
        return json.loads(beside.read_text()).get("edgequant", {}) if beside.is_file() else {}
    if not zipfile.is_zipfile(path):
        return {}
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("metadata.json")).get("edgequant", {})


def compared_metadata(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Keys with other values, or missing on one side (None); those inside of another as ``outer.inner``."""
    made: dict[str, tuple[Any, Any]] = {}
    for key in dict.fromkeys((*old, *new)):
        one, other = old.get(key), new.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            made |= compared_metadata(one, other, f"{prefix}{key}.")
        elif one != other:
            made[f"{prefix}{key}"] = (one, other)
    return made


def with_metadata(row: Row, old: Path, new: Path) -> Row:
    """Note the metadata of two files in their row."""
    before, after = contract_of(old), contract_of(new)
    row.metadata = compared_metadata(before, after)
    if before and not after:
        row.verdict, row.notes = "DIFFERENT", [*row.notes, "no metadata of ours"]
    return row


def compare_tflite(
    case: Case, file: str, old: Path, new: Path, images: list[Any], mean_ap: tuple[float, float] | None
) -> Row:
    """Compare the models in two ``.tflite`` files."""
    row = Row(case, file, "identical", mean_ap=mean_ap)
    models = read(old), read(new)
    canonical = [packed(model) for model in models]
    row.bytes = "same" if canonical[0] == canonical[1] else "differ"
    row.outputs = compared_outputs(outputs_of(old, images), outputs_of(new, images))
    if row.bytes == row.outputs == "same":
        return row
    row.verdict, row.notes = "DIFFERENT", explained(*models)
    is_meant, reason = ON_PURPOSE.get(case.name, (None, ""))
    if is_meant is None or not is_meant(*(operators(model) for model in models)):
        return row
    row.notes.insert(0, reason)
    if mean_ap is not None and mean_ap[1] >= mean_ap[0] - MOST_LOST:
        row.verdict = "changed on purpose"
    return row


def renumbered(xml: str) -> str:
    """An OpenVINO model with its automatic names, ``Constant_1257799``, counted anew: OpenVINO counts the process'."""
    numbers: dict[str, str] = {}

    def anew(match: re.Match[str]) -> str:
        return match[1] + numbers.setdefault(match[2], str(len(numbers)))

    return re.sub(r'("(?:Model|[A-Z][A-Za-z]*_))(\d+)(?=")', anew, xml)


def compare_openvino(case: Case, old: Path, new: Path, mean_ap: tuple[float, float]) -> Row:
    """Compare two folders of OpenVINO models."""
    files = [sorted(path for path in folder.rglob("*") if path.suffix in {".xml", ".bin"}) for folder in (old, new)]
    (old_bin, old_xml), (new_bin, new_xml) = files
    row = Row(case, "xml, bin", "identical", mean_ap=mean_ap)
    differing = [".xml"] if renumbered(old_xml.read_text()) != renumbered(new_xml.read_text()) else []
    differing += [".bin"] if old_bin.read_bytes() != new_bin.read_bytes() else []
    row.bytes = "differ" if differing else "same"
    if differing:
        row.notes = [f"{' and '.join(differing)} differ"]
        row.verdict = "same mAP" if round(mean_ap[0], 4) == round(mean_ap[1], 4) else "DIFFERENT"
    return with_metadata(row, old_xml, new_xml)


def compare(case: Case, out: Path) -> list[Row]:
    """Compare the files of one export, a row for each."""
    import cv2

    folders = out / "old" / case.name, out / "new" / case.name
    records = [record_of(folder) for folder in folders]
    errors = [record.get("error", "the process ended before") for record in records]
    if any(errors):
        sides = zip(("old", "new"), errors, strict=True)
        return [Row(case, "-", "DIFFERENT", notes=[f"{side}: {error or 'exported'}" for side, error in sides])]
    mean_ap = (records[0]["map"], records[1]["map"]) if case.validated else None
    try:
        if case.arguments["format"] == "openvino":
            return [compare_openvino(case, *folders, mean_ap)]
        pictures = sorted((data_of(out, case.task).parent / "images/val").glob("*.png"))[:IMAGES]
        images = [cv2.cvtColor(cv2.imread(str(picture)), cv2.COLOR_BGR2RGB) for picture in pictures]
        rows = []
        for file, old, new in paired(case, *(found(folder) for folder in folders)):
            if old is None or new is None:
                rows.append(Row(case, file, "DIFFERENT", notes=[f"only in {'new' if old is None else 'old'}"]))
                continue
            rows.append(with_metadata(compare_tflite(case, file, old, new, images, mean_ap), old, new))
    except Exception as error:  # a file that cannot be read is a difference, not the end
        return [Row(case, "-", "DIFFERENT", notes=[f"not comparable: {type(error).__name__}: {error}"])]
    return rows or [Row(case, "-", "DIFFERENT", notes=["no file on either side"])]


def show(rows: list[Row]) -> None:
    """Print the table and how many rows have each verdict."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    table = Table(title="Exports of the old package and of this one")
    for column in ("model", "format", "options", "file", "bytes", "outputs", "mAP50-95", "metadata", "result"):
        table.add_column(column, overflow="fold")
    for row in rows:
        arguments = row.case.arguments
        table.add_row(
            Path(row.case.checkpoint).stem,
            arguments["format"],
            row.case.options,
            row.file,
            row.bytes,
            row.outputs,
            "-" if row.mean_ap is None else " → ".join(f"{value:.4f}" for value in row.mean_ap),
            ", ".join(row.metadata) or "same",
            f"[{STYLES[row.verdict]}]{row.verdict}[/]" + "".join(f"\n{escape(note)}" for note in row.notes),
        )
    console.print(table)
    counts = Counter(row.verdict for row in rows)
    console.print(", ".join(f"{counts[verdict]} {verdict}" for verdict in STYLES if counts[verdict]))


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, metavar="OLD_CHECKOUT", help="folder of another checkout")
    parser.add_argument("--out", type=Path, help="folder for exports and compare.json; a temporary one if left out")
    parser.add_argument("--only", default="", help="formats, or names of exports; comma-separated")
    parser.add_argument("--side", help=argparse.SUPPRESS)  # what a child is to do
    arguments = parser.parse_args()

    only = set(filter(None, arguments.only.split(",")))
    every = matrix()
    unknown = only - {case.name for case in every} - {case.arguments["format"] for case in every}
    if unknown:
        parser.error(f"--only {', '.join(sorted(unknown))}: neither a format nor the name of an export")
    cases = [case for case in every if not only or only & {case.name, case.arguments["format"]}]
    if arguments.side is not None:
        export_side(arguments.out, arguments.side, arguments.old, cases)
        return 0

    old = arguments.old.resolve()
    if not (old / "yolo_edgequant" / "__init__.py").is_file():
        parser.error(f"'{old}' is no checkout of yolo_edgequant")
    out = (arguments.out or Path(tempfile.mkdtemp(prefix="compare_exports-"))).resolve()
    mark = fingerprint(old)
    missing = [case for case in cases if not is_done(case, out, mark)]
    print(f"exports go to {out}; old: {len(missing)} to do, {len(cases) - len(missing)} there already", flush=True)
    seconds = {"old": run_side(out, "old", old, old, missing)}
    for case in cases:  # nothing of an earlier run is taken for this one's
        shutil.rmtree(out / "new" / case.name, ignore_errors=True)
    ours = fingerprint(HERE)
    seconds["new"] = run_side(out, "new", HERE, old, cases)
    rows = [row for case in cases for row in compare(case, out)]
    show(rows)
    print(f"old side: {seconds['old']} s for {len(missing)} exports, new side: {seconds['new']} s for {len(cases)}")
    if fingerprint(HERE) != ours:
        print("this checkout was changed while it exported: run this again")
    report = {
        "old": {"checkout": str(old), "fingerprint": mark, "seconds": seconds["old"]},
        "new": {"checkout": str(HERE), "fingerprint": ours, "seconds": seconds["new"]},
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "rows": [asdict(row) | {"case": row.case.name, "arguments": asdict(row.case)} for row in rows],
    }
    (out / "compare.json").write_text(json.dumps(report, indent=1) + "\n")
    return int(any(row.verdict == "DIFFERENT" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
