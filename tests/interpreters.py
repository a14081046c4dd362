"""Do our `.tflite` files run in old interpreters, and say the same there? One command, a table, JSON.

Usage:
    python -m tests.interpreters [FILE …] [--out FOLDER] [--only NAME,…] [--images FOLDER]

Without a file it exports the small models of this repository, every head. Each interpreter has an environment of its
own under FOLDER, which pip makes and which is kept. Each runs each file on the same four inputs, with its own defaults.
Which versions hand an integer file to XNNPACK, and which take their own kernels, is left to them; the two round
differently. Outputs are compared with those of the newest interpreter, the first of ENVIRONMENTS: with its defaults and
with its own kernels. The nearer one counts.

A difference is counted in steps: of the output's scale where it has one, of a 255th of the output's range where it is
float. Rounding differs by a step here and there, and a network makes more of it: how much can be seen from the newest
interpreter's own two ways, the first row of the table. The exit status is 1 if a file does not run, or if its mean
difference is more than FACTOR times that of the first row, and MARGIN steps (of boxes: pixels) on top.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parents[1]
PROGRAM = Path(__file__).with_name("old_interpreter.py")
SIZE = 160
INPUTS = 4
FACTOR, MARGIN = 1.5, 0.25
CANDIDATE = 0.25  # a cell with a score over this may be an object

#: Each head by name: the model, and the arguments of its export besides the precision.
EXPORTS: dict[str, tuple[str, dict[str, Any]]] = {
    "detect int8": ("yolo_edgequant/demo/shapes.pt", {"head": "int8"}),
    "detect raw": ("yolo_edgequant/demo/shapes.pt", {"head": "raw"}),
    "detect float": ("yolo_edgequant/demo/shapes.pt", {"head": "float"}),
    "detect uint8": ("yolo_edgequant/demo/shapes.pt", {"head": "int8", "io": "uint8"}),
    "segment int8": ("tests/weights/shapes-seg.pt", {"head": "int8"}),
    "pose int8": ("tests/weights/shapes-pose.pt", {"head": "int8"}),
    "obb int8": ("tests/weights/shapes-obb.pt", {"head": "int8"}),
    "NMS-free int8": ("tests/weights/shapes26.pt", {"head": "int8", "nms": False}),
}


@dataclass(frozen=True)
class Environment:
    """An interpreter: its name, the Python that its wheels are for, and what pip installs."""

    name: str
    python: str
    requirements: tuple[str, ...]


def _tflite_runtime(version: str) -> Environment:
    python = "3.11" if version == "2.14.0" else "3.8"
    return Environment(f"tflite-runtime {version}", python, (f"tflite-runtime=={version}", "numpy<2"))


ENVIRONMENTS = (
    Environment("ai-edge-litert", "3.11", ("ai-edge-litert", "numpy")),
    *(
        Environment(f"tensorflow {version}", "3.11", (f"tensorflow-cpu=={version}",))
        for version in ("2.16.2", "2.15.1", "2.14.1", "2.13.1", "2.12.1")
    ),
    Environment("tensorflow 2.5.3", "3.8", ("tensorflow-cpu==2.5.3", "protobuf<3.21")),
    *map(_tflite_runtime, ("2.14.0", "2.13.0", "2.12.0", "2.11.0", "2.10.0", "2.9.1", "2.8.0", "2.7.0")),
)


@dataclass(frozen=True)
class Outputs:
    """What an interpreter gave for the inputs.

    Attributes:
        stored: an array (N, …) for each output, in the file's order.
        quantization: scale and zero point of each; scale 0 for float.
    """

    stored: list[np.ndarray]
    quantization: list[tuple[float, int]]

    @classmethod
    def read(cls, file: Path) -> Outputs:
        """What tests/old_interpreter.py has written."""
        with np.load(file) as arrays:
            facts = json.loads(str(arrays["facts"]))
            stored = [arrays[str(number)] for number in range(len(facts["quantization"]))]
        return cls(stored, [(scale, zero) for scale, zero in facts["quantization"]])

    def values(self, number: int) -> np.ndarray:
        """An output as float64 values."""
        scale, zero = self.quantization[number]
        stored = self.stored[number].astype(np.float64)
        return stored if not scale else (stored - zero) * scale


@dataclass(frozen=True)
class Difference:
    """Between an interpreter's outputs and the newest's, over all outputs and inputs.

    Attributes:
        equal: share of values that are the same.
        largest, mean: difference of an output, in steps; the worst output's mean.
        largest_pixels, pixels: the largest and the mean difference of the decoded boxes of cells that may be objects;
            None for other files.
        own: the newest interpreter's own kernels are what it was compared with, not its defaults.
        error: why there is nothing to compare, one line.
        within: the difference is one of rounding.
    """

    equal: float = 0.0
    largest: float = 0.0
    mean: float = 0.0
    largest_pixels: float | None = None
    pixels: float | None = None
    own: bool = False
    error: str | None = None
    within: bool = True

    @property
    def cell(self) -> str:
        """For the table."""
        if self.error is not None:
            return "FAILED"
        kernels = " (own)" if self.own else ""
        if self.equal == 1:
            return f"equal{kernels}"
        boxes = "" if self.pixels is None else f"; {self.pixels:.2f} / {self.largest_pixels:.1f} px"
        failed = "" if self.within else " FAILED"
        return f"{self.equal:.1%}; {self.mean:.2f} / {self.largest:.0f}{boxes}{kernels}{failed}"

    def judged(self, rounding: Difference) -> Difference:
        """This difference, held against one that is known to come of rounding."""
        pairs = [(self.mean, rounding.mean)]
        if self.pixels is not None and rounding.pixels is not None:
            pairs.append((self.pixels, rounding.pixels))
        return replace(self, within=self.error is None and all(a <= FACTOR * b + MARGIN for a, b in pairs))


def nearer(newest: Outputs, own: Outputs, other: Outputs, boxes: Boxes | None = None) -> Difference:
    """Compare with the newest interpreter's outputs, by its defaults or its own kernels, whichever is nearer."""
    default, kernels = compare(newest, other, boxes), compare(own, other, boxes)
    return replace(kernels, own=True) if (kernels.equal, -kernels.mean) > (default.equal, -default.mean) else default


def compare(newest: Outputs, other: Outputs, boxes: Boxes | None = None) -> Difference:
    """Compare two interpreters' outputs of the same file and inputs.

    Args:
        newest: the reference.
        other: of the interpreter in question.
        boxes: where decoded boxes lie; None if the file has none.
    """
    shapes = [[(a.shape, str(a.dtype)) for a in outputs.stored] for outputs in (newest, other)]
    if shapes[0] != shapes[1]:
        return Difference(within=False, error=f"outputs are {shapes[1]} where the newest interpreter has {shapes[0]}")
    if not all(np.isfinite(array).all() for array in other.stored):
        return Difference(within=False, error="an output is not finite")
    steps, same, count = [], 0, 0
    for number, (one, two) in enumerate(zip(newest.stored, other.stored, strict=True)):
        scale = newest.quantization[number][0]
        step = scale or float(np.ptp(one.astype(np.float64))) / 255 or 1.0
        steps.append(np.abs(newest.values(number) - other.values(number)) / step)
        same += int((one == two).sum())
        count += one.size
    return Difference(
        same / count,
        max(float(s.max()) for s in steps),
        max(float(s.mean()) for s in steps),
        *((None, None) if boxes is None else boxes.difference(newest, other)),
    )


@dataclass(frozen=True)
class Boxes:
    """Where a file's decoded boxes lie: an output (N, 4 + classes + …, A), in shares of an input of `size` pixels."""

    output: int
    classes: int
    size: int

    def difference(self, one: Outputs, other: Outputs) -> tuple[float, float]:
        """The largest and the mean difference of a box, in pixels, among the cells that may be an object in both.

        That of a box is the largest of its four numbers.
        """
        values = [outputs.values(self.output) for outputs in (one, other)]
        may_be = np.logical_and(*(v[:, 4 : 4 + self.classes].max(1) > CANDIDATE for v in values))
        apart = np.abs(values[0][:, :4] - values[1][:, :4]).max(1)[may_be] * self.size
        return (float(apart.max()), float(apart.mean())) if apart.size else (0.0, 0.0)


def boxes_of(file: Path) -> Boxes | None:
    """Where a file of ours holds decoded boxes; None for raw files, those with final detections, and others' files."""
    from yolo_edgequant import contract
    from yolo_edgequant.errors import ContractError
    from yolo_edgequant.runtime.interpreter import TFLite

    try:
        facts = contract.read(file)
    except ContractError:
        return None
    names = [output.name for output in facts.outputs]
    if not facts.normalised or "detections" not in names or (facts.is_final and facts.top_k is None):
        return None
    height, width = TFLite(file, 1).input.shape[1:3]
    return Boxes(names.index("detections"), len(facts.names), max(height, width))


def interpreter_of(python: str) -> str | None:
    """A Python of a version like "3.8", from pyenv or PATH; None if there is none."""
    installed = sorted((Path.home() / ".pyenv" / "versions").glob(f"{python}.*/bin/python"))
    return str(installed[-1]) if installed else shutil.which(f"python{python}")


def prepare(environment: Environment, out: Path) -> Path:
    """The Python of an environment, made if it is not there.

    Raises:
        RuntimeError: there is no such Python, or pip failed; one line.
    """
    folder = out / "environments" / environment.name.replace(" ", "-")
    ready = folder / "ok"
    if not ready.exists():
        base = interpreter_of(environment.python)
        if base is None:
            raise RuntimeError(f"no Python {environment.python} on this machine; install it with pyenv")
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([base, "-m", "venv", str(folder)], check=True)
        command = [str(folder / "bin" / "pip"), "install", "-q", *environment.requirements]
        said = subprocess.run(command, capture_output=True, text=True)
        if said.returncode:
            raise RuntimeError(f"pip failed: {last_line(said.stderr)}")
        ready.touch()
    return folder / "bin" / "python"


def version(environment: Environment, python: Path) -> str:
    """The name, with the version that is installed where the name has none."""
    if "==" in environment.requirements[0]:
        return environment.name
    code = f"from importlib.metadata import version; print(version({environment.requirements[0]!r}))"
    return f"{environment.name} {subprocess.check_output([str(python), '-c', code], text=True).strip()}"


def last_line(text: str) -> str:
    """The last line with something in it."""
    return next((line.strip()[:300] for line in reversed(text.splitlines()) if line.strip()), "no message")


def run(python: Path, file: Path, inputs: Path, target: Path, own: bool = False) -> Outputs:
    """A file's outputs in an environment, by the interpreter's defaults or its own kernels.

    Raises:
        RuntimeError: it does not run there; one line.
    """
    command = [str(python), str(PROGRAM), str(file), str(inputs), str(target), *(["own"] if own else [])]
    child = subprocess.run(command, capture_output=True, text=True, cwd=target.parent, env={"PATH": "/usr/bin:/bin"})
    if child.returncode:
        raise RuntimeError(last_line(child.stderr))
    return Outputs.read(target)


def exports(out: Path) -> dict[str, Path]:
    """The small models' files, exported into a folder; those that are there are taken."""
    from ultralytics import YOLO

    from yolo_edgequant.demo.dataset import data_set

    files = {}
    for name, (weights, arguments) in EXPORTS.items():
        folder = out / "files" / name.replace(" ", "-")
        written = sorted(folder.glob("*.tflite"))
        if not written:
            folder.mkdir(parents=True, exist_ok=True)
            model = YOLO(shutil.copy(HERE / weights, folder))
            data = data_set(folder / "data", 24, 8, SIZE, seed=3, task=model.task)
            written = [
                Path(model.export(format="tflite", quantize=8, data=data, split="train", imgsz=SIZE, **arguments))
            ]
        files[name] = written[0]
    return files


def pictures(folder: Path | None) -> list[np.ndarray]:
    """Four images, (H, W, 3) uint8 BGR: the first of a folder, or drawn."""
    if folder is None:
        from yolo_edgequant.demo.dataset import picture

        return [picture(640, np.random.default_rng(number))[0] for number in range(INPUTS)]
    from yolo_edgequant.runtime.sources import images

    return [image for (_, image), _ in zip(images(str(folder)), range(INPUTS), strict=False)]


def inputs_of(file: Path, images: Iterable[np.ndarray], target: Path) -> Path:
    """Write the images as a file takes them, (N, H, W, 3) or (N, 3, H, W) as stored."""
    from yolo_edgequant.runtime.interpreter import TFLite
    from yolo_edgequant.runtime.letterbox import Letterbox

    tensor = TFLite(file, 1).input
    fit = Letterbox(tensor, channels_last=tensor.shape[3] == 3)
    np.save(target, np.concatenate([fit(image)[0].copy() for image in images]))
    return target


def table(results: dict[str, dict[str, Difference]], newest: str) -> str:
    """The results in Markdown, a row an interpreter and a column a file, and below what failed."""
    files = list(dict.fromkeys(name for row in results.values() for name in row))
    lines = [f"| compared with {newest} | " + " | ".join(files) + " |", "| --- |" + " --- |" * len(files)]
    for name, row in results.items():
        lines.append(f"| {name} | " + " | ".join(row[file].cell if file in row else "" for file in files) + " |")
    lines += [
        "",
        "Share of equal values; mean / largest difference in steps; mean / largest of candidates' boxes in pixels.",
    ]
    lines += ["(own): nearer to the newest interpreter's own kernels than to its defaults, and compared with these."]
    failed: dict[str, list[str]] = {}
    for name, row in results.items():
        for file, difference in row.items():
            if not difference.within:
                reason = difference.error or f"not a difference of rounding: {difference.cell}"
                failed.setdefault(reason, []).append(f"{name}, {file}")
    for reason, where in failed.items():
        lines += ["", f"- {where[0]}{f' and {len(where) - 1} more' if where[1:] else ''}: {reason}"]
    return "\n".join(lines)


def check(
    files: dict[str, Path],
    environments: Sequence[Environment],
    out: Path,
    images: list[np.ndarray],
    said: Callable[[str], Any] = lambda line: None,
) -> tuple[dict[str, dict[str, Difference]], str]:
    """Run files in environments, the first of which is the reference.

    Returns:
        The differences by interpreter and file, and the reference's name and version.

    Raises:
        RuntimeError: the reference cannot be made, or a file does not run in it.
    """
    work = out / "outputs"
    work.mkdir(parents=True, exist_ok=True)
    python = prepare(environments[0], out)
    newest = version(environments[0], python)
    cases = {}
    for number, (name, file) in enumerate(files.items()):
        inputs = inputs_of(file, images, work / f"inputs-{number}.npy")
        references = [run(python, file, inputs, work / "newest.npz", own) for own in (False, True)]
        cases[name] = (file, inputs, references, boxes_of(file))
    kernels = {name: compare(*references, boxes) for name, (_, _, references, boxes) in cases.items()}
    results = {f"{newest}, its own kernels": kernels}
    for environment in environments[1:]:
        row: dict[str, Difference] = {}
        results[environment.name] = row
        try:
            python = prepare(environment, out)
        except RuntimeError as error:
            row |= {name: Difference(within=False, error=str(error)) for name in cases}
            said(f"{environment.name}: {error}")
            continue
        for name, (file, inputs, references, boxes) in cases.items():
            try:
                row[name] = nearer(*references, run(python, file, inputs, work / "other.npz"), boxes).judged(
                    kernels[name]
                )
            except RuntimeError as error:
                row[name] = Difference(within=False, error=str(error))
            said(f"{environment.name}, {name}: {row[name].error or row[name].cell}")
    return results, newest


def main() -> int:
    """Run the command that the module's description says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--out", type=Path, default=Path("interpreters"))
    parser.add_argument("--only", default="", help="names of interpreters with commas between")
    parser.add_argument("--images", type=Path, help="folder; drawn images without")
    options = parser.parse_args()
    out = options.out.resolve()
    files = {file.stem: file.resolve() for file in options.files} if options.files else exports(out)
    wanted = {name for name in options.only.split(",") if name}
    environments = [ENVIRONMENTS[0], *(e for e in ENVIRONMENTS[1:] if not wanted or e.name in wanted)]
    results, newest = check(
        files, environments, out, pictures(options.images), lambda line: print(f"== {line}", flush=True)
    )
    written = {name: {file: asdict(d) for file, d in row.items()} for name, row in results.items()}
    (out / "interpreters.json").write_text(json.dumps({"newest": newest, "interpreters": written}, indent=1) + "\n")
    print(table(results, newest))
    return int(not all(difference.within for row in results.values() for difference in row.values()))


if __name__ == "__main__":
    sys.exit(main())
