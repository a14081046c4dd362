"""Do files made for a device fit what its profile says? One command, a table, JSON.

Usage:
    python -m tests.profiles [TARGET …] [--out FOLDER] [--model PT] [--images FOLDER]

For each profile the model is exported with `target=NAME` twice: as it is, and with ReLU6 in place of its activations,
untrained, at the largest input that the profile knows to run wholly on the accelerator. Targets that come to the same
options share a file. Then every claim of the profile that can be checked without the device is: what was chosen for the
file, in its metadata and in its tensors; where its operators run by the profile's rules, and in how many pieces; its
weights beside the accelerator's memory; the options that are said to leave work to the CPU; that the interpreter runs
it, and that the file finds what the float model finds in images that were not calibrated on. For i.MX 93 Vela compiles
it, if it is on PATH. A file that is to be compiled for the Edge TPU is checked as it is before.

The exit status is 1 if something contradicts a profile.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from yolo_edgequant import contract
from yolo_edgequant.contract import Contract
from yolo_edgequant.errors import CompilerError, MissingToolError
from yolo_edgequant.inspection import vela
from yolo_edgequant.inspection.model import Model
from yolo_edgequant.inspection.placing import Placed, placed
from yolo_edgequant.inspection.reading import open_model
from yolo_edgequant.options import ExportOptions, Target
from yolo_edgequant.targets.devices import Caution, Device, Effect, device
from yolo_edgequant.targets.formats import PROFILES, Request, resolve
from yolo_edgequant.targets.placement import Place

SHARED = Path(__file__).resolve().parents[2] / "shared"
SIZE = 640
CALIBRATED, COMPARED = 64, 8  # images
SURE, FOUND, OVERLAP = 0.5, 0.25, 0.5  # scores of the float model's objects and of the file's, and their IoU
SLACK = 0.05  # share by which a time that a compiler estimates may differ from the profile's
LEAST = 0.8  # share of the float model's objects that a file has to find

_ADVISED = "advised against"

#: Dimensions and number of the outputs of a detection file, by its arrangement.
SHAPES = {"levels": (3, 6), "merged": (3, 2), "grid": (4, 6), "single": (3, 1), "separate": (3, 1)}


@dataclass(frozen=True)
class Check:
    """A claim of a profile, what was found of it, and whether that is as claimed; None if no claim is made."""

    claim: str
    found: str
    holds: bool | None = None


@dataclass
class Case:
    """A file for a target.

    Attributes:
        target: name.
        activation: of the model.
        size: of the input, pixels.
        file: that was made.
        options: that the profile and the format chose, in words.
        accelerator, cpu, pieces: operators by the profile's rules, and parts of the graph on the accelerator; None
            without a list of operators.
        weights: bytes of constants.
        objects: of the float model's, how many the file finds, and of how many; None where that is not asked.
        agreement: by the export's self-check.
        vela: what Vela said; empty where it was not asked.
        checks: every claim.
    """

    target: str
    activation: str
    size: int
    file: Path
    options: str
    accelerator: int | None = None
    cpu: int | None = None
    pieces: int | None = None
    weights: int = 0
    objects: tuple[int, int] | None = None
    agreement: float | None = None
    vela: str = ""
    checks: list[Check] = field(default_factory=list)

    @property
    def contradictions(self) -> list[Check]:
        """Claims that do not hold."""
        return [check for check in self.checks if check.holds is False]


def request_of(profile: Device) -> Request:
    """What `target=NAME` comes to."""
    of_format = PROFILES[profile.formats[0]]
    return resolve(of_format, profile.fill(ExportOptions(), of_format))


def options_of(request: Request) -> str:
    """The options in words."""
    parts = (request.profile.format, request.head, request.outputs, request.granularity, request.io)
    return " ".join(map(str, parts))


def of_contract(facts: Contract, profile: Device, request: Request, sharing: Iterable[str]) -> list[Check]:
    """What was chosen, beside what a file's metadata says.

    Args:
        facts: the file's metadata.
        profile: of the device.
        request: what was chosen.
        sharing: the targets that the file was made for.
    """
    arrangement = str(request.outputs if facts.raw is None else facts.raw.arrangement)
    layout = "NHWC" if facts.channels_last else "NCHW"
    pairs = {
        "head": (request.head, facts.head),
        "granularity": (request.granularity, facts.granularity),
        "io": (request.io, facts.io),
        "outputs": (request.outputs, arrangement),
        "layout": (profile.layout, layout),
    }
    checks = [
        Check(f"{name}={said}", f"metadata: {found}", str(said) == str(found)) for name, (said, found) in pairs.items()
    ]
    for entry in profile.defaults:
        chosen = getattr(request, entry.option)
        checks.append(Check(f"default {entry.option}={entry.value}", f"chosen: {chosen}", chosen == entry.value))
    return [*checks, Check("target", f"metadata: {facts.target}", str(facts.target) in set(map(str, sharing)))]


def of_tensors(model: Model, profile: Device, request: Request) -> list[Check]:
    """What was chosen, beside what a detection file's tensors are."""
    tflite = model.family == "tflite"
    source = model.tensors[model.inputs[0]]
    channels = source.shape[3 if profile.layout == "NHWC" else 1] if len(source.shape) == 4 else 0
    checks = [Check(f"layout {profile.layout}", f"input {_shape(source.shape)}", channels == 3)]
    io = {"float": "float32"}.get(str(request.io), str(request.io))
    checks.append(Check(f"io={request.io}", f"input {source.dtype}", source.dtype == io))
    outputs = [model.tensors[tensor] for tensor in model.outputs]
    types = sorted({output.dtype for output in outputs})
    if tflite and request.io != "float":
        wanted = ["float32"] if request.head == "float" else [io]
        checks.append(Check(f"head={request.head}", f"outputs {', '.join(types)}", types == wanted))
    rank, count = SHAPES[str(request.outputs)]
    shapes = Counter(_shape(output.shape) for output in outputs)
    found = ", ".join(f"{n} of {shape}" if n > 1 else shape for shape, n in shapes.items())
    fits = len(outputs) == count and all(len(output.shape) == rank for output in outputs)
    checks.append(Check(f"outputs={request.outputs}", f"outputs {found}", fits))
    weights = [w for node in model.nodes if (w := model.weights_of(node)) is not None]
    scales = [len(w.scales) for w in weights if "float" not in w.dtype]  # a head in float has a layer of its own
    several = sum(n > 1 for n in scales)
    right = bool(scales) and min(scales) > 0 and (several > 0) == (str(request.granularity) == "channel")
    checks.append(
        Check(f"granularity={request.granularity}", f"{several} of {len(scales)} weights with several scales", right)
    )
    if tflite and request.head in {"raw", "int8"}:
        floats = [model.tensors[t].name for t in model.computed if model.tensors[t].dtype.startswith("float")]
        checks.append(Check("all in integers", f"{len(floats)} float tensors", not floats))
    return checks


def of_placement(where: Placed, activation: str, size: int, request: Request) -> list[Check]:
    """Where a file's operators run by the rules, beside what the profile says of its activation and its head.

    Where it says that both work, and advises against nothing in the file, all of it belongs on the accelerator.
    """
    profile = where.device
    if profile.operators is None:
        return []
    reasons = Counter(placement.reason for placement in where.placements if placement.place != Place.ACCELERATOR)
    on = len(where.placements) - sum(reasons.values())
    shown = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(4))
    found = f"{on} of {len(where.placements)} operators on the accelerator, {where.partitions} piece(s)"
    effect = next((entry.effect for entry in profile.activations if entry.name == activation), None)
    advised = any(entry.value == getattr(request, entry.option) for entry in profile.cautions)
    whole = effect == Effect.WORKS and not advised
    holds = (not reasons and where.partitions == 1) if whole else None
    claim = f"{activation} {effect or 'not known'}: {'one piece, nothing on the CPU' if whole else 'no claim'}"
    checks = [Check(claim, f"{found}{f' ({shown})' if shown else ''}", holds)]
    if profile.size is not None and size > profile.size.largest:
        checks.append(
            Check(f"runs wholly up to {profile.size.largest} px", f"{size} px: by the rules alone, {found}", None)
        )
    return checks


def of_memory(weights: int, where: Placed) -> list[Check]:
    """A file's weights beside the accelerator's memory for them."""
    if where.parameters is None:
        return []
    found = f"{weights / 1e6:.2f} MB of weights"
    return [Check(f"{where.parameters / 1e6:.2f} MB for parameters", found, weights <= where.parameters)]


def of_caution(entry: Caution, model: Model, where: Placed) -> Check:
    """A head that is said to leave work to the CPU, perhaps so many float operators, beside a file with it."""
    cpu = Counter(p.reason for p in where.placements if p.place == Place.CPU)
    shown = "; ".join(f"{count} x {reason}" for reason, count in cpu.most_common(3))
    floats = sum(
        any(model.tensors[t].dtype == "float32" for t in (*node.inputs, *node.outputs))
        for node in model.nodes
        if node.kind not in {"QUANTIZE", "DEQUANTIZE"}
    )
    said = re.search(r"\b(\d+) float operators", entry.why)
    found = f"{sum(cpu.values())} of {len(where.placements)} operators on the CPU ({shown}), {floats} of them float"
    return Check(
        f"head={entry.value} {_ADVISED}: {entry.why}", found, bool(cpu) and (not said or int(said[1]) == floats)
    )


def matched(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> int:
    """How many of the float model's objects a file finds: rows of x1, y1, x2, y2, score, class, image by image."""
    from yolo_edgequant.runtime.nms import overlaps

    count = 0
    for one, other in zip(ours, theirs, strict=True):
        if not len(one) or not len(other):
            continue
        table = np.nan_to_num(overlaps(other[:, :4], one[:, :4]))
        table[other[:, 5, None] != one[:, 5]] = 0
        while table.max() > OVERLAP:
            row, column = np.unravel_index(table.argmax(), table.shape)
            table[row], table[:, column] = 0, 0
            count += 1
    return count


def objects(model: Path, images: Sequence[Path], size: int, conf: float) -> list[np.ndarray]:
    """What `YOLO(model).predict` finds, rows as in :func:`matched`."""
    from ultralytics import YOLO

    import yolo_edgequant  # noqa: F401

    yolo = YOLO(model, task="detect")
    results = [yolo.predict(str(path), imgsz=size, conf=conf, verbose=False)[0] for path in images]
    return [result.boxes.data.cpu().numpy()[:, :6] for result in results]


def runs(file: Path, image: Path) -> Check:
    """Does the interpreter run a file, and are its outputs finite, and not each one number?

    Some may be: the scores of a level without any object, whose logits are cut at the low end.
    """
    import cv2

    from yolo_edgequant.runtime.interpreter import open_file
    from yolo_edgequant.runtime.letterbox import Letterbox

    interpreter = open_file(file, 1)
    fit = Letterbox(interpreter.input, channels_last=contract.read(file).channels_last)
    outputs = interpreter.run(fit(cv2.imread(str(image)))[0])
    good = all(np.isfinite(one).all() for one in outputs) and any(len(np.unique(one)) > 1 for one in outputs)
    found = f"{len(outputs)} outputs{'' if good else ', not finite, or each one number'}"
    return Check("runs in the interpreter", found, good)


def by_vela(file: Path, profile: Device, activation: str, known: bool) -> tuple[str, list[Check]]:
    """What Vela makes of a file, if it is there: all operators on the NPU, and the time that the profile names.

    Args:
        file: to compile.
        profile: of the device.
        activation: of the model.
        known: it is the model and the size that the profile's times are of.
    """
    configuration = vela.CONFIGURATIONS.get(str(profile.name))
    if configuration is None:
        return "", []
    try:
        said = vela.compile_file(file, configuration)
    except MissingToolError:
        return "", []
    except CompilerError as error:
        return "failed", [Check("Vela compiles it", str(error), False)]
    taken = 1000 / said.per_second if said.per_second else 0.0
    found = f"{said.accelerator} on the NPU, {said.cpu} on the CPU, {taken:.1f} ms"
    checks = [Check("all on the NPU", f"{said.compiler}, {said.device}: {found}", not said.cpu)]
    note = next((entry.note for entry in profile.activations if entry.name == activation), "")
    if known and (time := re.search(r"([\d.]+) ms estimated", note)):
        near = abs(taken - float(time[1])) <= SLACK * float(time[1])
        checks.append(Check(f"{activation}: {note}", f"{taken:.1f} ms estimated by {said.compiler}", near))
    return f"{said.compiler}: {found}", checks


def data_of(images: Sequence[Path], names: dict[int, str], folder: Path) -> Path:
    """A data set of images without labels."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "images").mkdir(parents=True)
    for path in images:
        shutil.copyfile(path, folder / "images" / path.name)
    file = folder / "data.yaml"
    file.write_text(json.dumps({"path": str(folder), "train": "images", "val": "images", "names": names}))
    return file


def export(
    model: Path, activation: str | None, name: str, data: Path, size: int, folder: Path, head: str | None = None
) -> Path:
    """Export a model for a target into a folder; what is there already is taken.

    Args:
        model: a checkpoint.
        activation: to swap in; None for the model as it is.
        name: of the target.
        data: YAML of the images to calibrate on.
        size: of the input, pixels.
        folder: for the file.
        head: another than the target's own.
    """
    from ultralytics import YOLO

    import yolo_edgequant

    def written() -> list[Path]:
        files = [file for file in sorted(folder.glob("*.tflite")) if not file.stem.endswith("_vela")]
        return files + sorted(folder.glob("*_openvino_model"))

    if not written():
        folder.mkdir(parents=True, exist_ok=True)
        yolo = YOLO(shutil.copyfile(model, folder / model.name))
        if activation is not None:
            yolo_edgequant.swap_activation(yolo, activation)
        more: dict[str, Any] = {} if head is None else {"head": head}
        more |= {} if activation is None else {"verify": False}
        try:
            yolo.export(target=name, data=str(data), split="train", imgsz=size, **more)
        except MissingToolError:
            if not written():
                raise  # not the Edge TPU compiler alone
    (file,) = written()
    return file


def check(
    names: Sequence[str],
    model: Path,
    images: Sequence[Path],
    out: Path,
    size: int = SIZE,
    calibrated: int = CALIBRATED,
    swapped: Sequence[str | None] = (None, "relu6"),
    cautions: bool = True,
    said: Callable[[str], Any] = lambda line: None,
) -> list[Case]:
    """Export a detection model for targets, and check what their profiles say.

    Args:
        names: of the targets.
        model: its checkpoint; with SiLU.
        images: to calibrate on, and behind them those to compare on.
        out: folder for all that is made.
        size: of the input, pixels, of the model as it is.
        calibrated: so many of the images are calibrated on.
        swapped: activations to swap in; None for the model as it is.
        cautions: export files with the heads that are said to leave work to the CPU, too.
        said: is told of each case.
    """
    from ultralytics import YOLO

    data = data_of(images[:calibrated], YOLO(model).names, out / "data")
    compared = images[calibrated:]
    reference = objects(model, compared, size, SURE)
    cases = []
    for name in names:
        profile = device(name)
        request = request_of(profile)
        advised = [e for e in profile.cautions if (e.option, e.effect) == ("head", Effect.CPU) and profile.operators]
        sharing = [n for n in names if _key(device(n)) == _key(profile)]
        for activation in swapped:
            side = size if activation is None or profile.size is None else min(size, profile.size.largest)
            shown = activation or "silu"
            file = export(model, activation, sharing[0], data, side, out / "files" / f"{sharing[0]}-{shown}-{side}")
            opened, facts = open_model(file), contract.read(file)
            where = placed(opened, profile)
            case = Case(name, shown, side, file, options_of(request), weights=opened.weights)
            if profile.operators is not None:
                case.accelerator = sum(p.place == Place.ACCELERATOR for p in where.placements)
                case.cpu, case.pieces = len(where.placements) - case.accelerator, where.partitions
            case.checks += of_contract(facts, profile, request, sharing) + of_tensors(opened, profile, request)
            case.checks.append(
                Check(f"activation {shown}", f"metadata: {facts.activation}", facts.activation == activation)
            )
            case.checks += of_placement(where, shown, side, request) + of_memory(opened.weights, where)
            case.checks.append(runs(file, compared[0]))
            case.vela, more = by_vela(file, profile, shown, model.stem == "yolov8n" and side == SIZE)
            case.checks += more
            if activation is None:
                case.agreement = None if facts.verified is None else facts.verified.agreement
                theirs = sum(map(len, reference))
                case.objects = (matched(objects(file, compared, side, FOUND), reference), theirs)
                enough = bool(theirs) and case.objects[0] >= LEAST * theirs
                case.checks.append(
                    Check("predict finds the float model's objects", f"{case.objects[0]} of {theirs}", enough)
                )
            cases.append(case)
            for entry in advised if cautions and activation is None else ():
                head = str(entry.value)
                folder = out / "files" / f"{sharing[0]}-{head}-{side}"
                other = export(model, None, sharing[0], data, side, folder, head)
                read = open_model(other)
                case.checks.append(of_caution(entry, read, placed(read, profile)))
            said(f"{name}, {shown}: {len(case.contradictions)} contradictions in {len(case.checks)} checks")
    return cases


def table(cases: Sequence[Case]) -> str:
    """The results in Markdown, a row a case, and below what is on the CPU and what contradicts a profile."""
    lines = [
        "| target | activation, size | file | accelerator | CPU | pieces | weights, MB | objects | self-check | Vela "
        "| claims |",
        "|" + " --- |" * 11,
    ]
    for case in cases:
        claims = [check for check in case.checks if check.holds is not None]
        good = len(claims) - len(case.contradictions)
        cells = [
            f"`{case.target}`",
            f"{case.activation}, {case.size}",
            case.options,
            *("" if n is None else str(n) for n in (case.accelerator, case.cpu, case.pieces)),
            f"{case.weights / 1e6:.2f}",
            "" if case.objects is None else f"{case.objects[0]} of {case.objects[1]}",
            "" if case.agreement is None else f"{case.agreement:.3f}",
            case.vela,
            f"{good} of {len(claims)}{' FAILED' if case.contradictions else ''}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        "Operators on the accelerator and the CPU, and pieces, are by the profile's rules, where it lists operators; "
        "objects: of the float model, found in the file; claims: that hold, of those that were made.",
        "",
    ]
    for case in cases:
        lines += [
            f"- `{case.target}`, {case.activation}: {check.claim}: {check.found}"
            + (" FAILED" if check.holds is False else "")
            for check in case.checks
            if not check.holds or _ADVISED in check.claim
        ]
    return "\n".join(lines)


def _key(profile: Device) -> tuple[str, str]:
    """Targets with the same one share a file."""
    return options_of(request_of(profile)), profile.nncf or ""


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def main() -> int:
    """Run the command that the module's description says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", choices=[*map(str, Target), []], default=[])
    parser.add_argument("--out", type=Path, default=Path("profiles"))
    parser.add_argument("--model", type=Path, default=SHARED / "data/weights/yolov8n.pt")
    parser.add_argument("--images", type=Path, default=SHARED / "data/coco/images/train")
    options = parser.parse_args()
    out = options.out.resolve()
    images = sorted(options.images.resolve().glob("*.jpg"))[: CALIBRATED + COMPARED]
    names = options.targets or list(map(str, Target))
    cases = check(names, options.model.resolve(), images, out, said=lambda line: print(f"== {line}", flush=True))
    written = [asdict(case) | {"file": str(case.file)} for case in cases]
    (out / "profiles.json").write_text(json.dumps(written, indent=1) + "\n")
    print(table(cases))
    return int(any(case.contradictions for case in cases))


if __name__ == "__main__":
    sys.exit(main())
