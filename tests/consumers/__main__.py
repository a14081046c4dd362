"""Do programs of other people read our files? One command, a table, JSON.

Usage:
    python -m tests.consumers [FILE …] [--out FOLDER] [--images FOLDER] [--only NAME,…]

The programs come from PyPI, into an environment of their own under FOLDER, which is kept; it sees the packages of this
Python, torch among them, behind its own. Frigate is no package: its arithmetic is written anew in frigate.py. Each
program is a script in programs/ and runs in a child process on 20 images, which have the size of the file's input
already: what is compared is how outputs are read, not how images are scaled. What it finds is held against
`YOLO(file).predict`: the same class, an IoU over 0.99 and a score within 0.01. Objects that only differ because a
program suppresses overlaps in its own way are counted apart, and so is what is lost by that.

Without a file it exports the small models of this repository, and draws the images. The exit status is 1 if a program
finds something wrong, or finds nothing, or loses objects though its suppression is as Ultralytics'.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tests.consumers.comparison import OVERLAP, SCORE, Agreement, Objects, compare

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PACKAGES = ("yolov8-tflite-imx", "edgefirst-hal", "supervision", "sahi", "openvino-model-api")
IMAGES, SIZE, IOU = 20, 320, 0.7
TASKS = ("detect", "segment", "pose", "obb")


@dataclass(frozen=True)
class Consumer:
    """A program of other people.

    Attributes:
        script: in programs/, without its ending.
        kinds: of files that it reads, see :func:`kind`.
        tasks: that it reads.
        conf: its threshold of scores.
        own_nms: how its suppression of overlaps differs from Ultralytics'; empty if it does not.
        settings: of the script.
        overlap, score: what an object has to agree within.
        pixels: within which sides are the same whatever the overlap, by task: for programs that give whole pixels.
    """

    script: str
    kinds: tuple[str, ...]
    tasks: tuple[str, ...] = ("detect",)
    conf: float = 0.25
    own_nms: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    overlap: float = OVERLAP
    score: float = SCORE
    pixels: dict[str, float] = field(default_factory=dict)


_ALL = ("int8", "float", "levels", "merged", "grid", "openvino int8", "openvino float", "openvino raw")
_FRIGATE = "takes corners for sizes, and suppresses across classes at 0.4, at most 20 objects"
_IMX = (
    "clips boxes to the image first; that of poses rounds them to whole pixels, and that of rotated boxes is OpenCV's"
)
_IMX_PIXELS = {"pose": 2.0}  # its poses' corner and size are each cut to whole pixels
_MODEL_API = "takes the later of equal scores first; its boxes are in whole pixels, held to half a pixel"
CONSUMERS = {
    "Frigate edgetpu": Consumer("frigate_edgetpu", ("merged",), conf=0.4, own_nms=_FRIGATE),
    "Frigate openvino": Consumer("frigate_openvino", ("openvino int8", "openvino float"), conf=0.4, own_nms=_FRIGATE),
    "EdgeFirst HAL": Consumer("edgefirst", ("int8", "float", "levels", "grid")),
    "yolov8-tflite-imx": Consumer(
        "tflite_imx", ("int8", "single"), TASKS, own_nms=_IMX, settings={"round": True}, pixels=_IMX_PIXELS
    ),
    "yolov8-tflite-imx as it is": Consumer(
        "tflite_imx",
        ("int8", "single"),
        TASKS,
        own_nms=_IMX,
        settings={"round": False},
        overlap=0.6,
        score=0.2,
        pixels=_IMX_PIXELS,
    ),
    "supervision": Consumer("with_supervision", _ALL),
    "sahi": Consumer("with_sahi", _ALL),
    "OpenVINO Model API": Consumer(
        "openvino_model_api", ("openvino int8", "openvino float"), pixels={"detect": 0.51}, own_nms=_MODEL_API
    ),
}

#: Each file that is exported by name: the model, and the arguments besides the precision.
EXPORTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        f"detect {name}": ("yolo_edgequant/demo/shapes.pt", {"format": "tflite", **arguments})
        for name, arguments in {
            "int8": {"head": "int8"},
            "float": {"head": "float"},
            "raw": {"head": "raw"},
            "raw merged": {"head": "raw", "outputs": "merged"},
            "raw grid": {"head": "raw", "outputs": "grid"},
        }.items()
    },
    "detect openvino int8": ("yolo_edgequant/demo/shapes.pt", {"format": "openvino", "head": "int8"}),
    "detect openvino float": ("yolo_edgequant/demo/shapes.pt", {"format": "openvino", "head": "float"}),
    **{
        f"{task} single": (f"tests/weights/{file}.pt", {"format": "tflite", "head": "int8", "outputs": "single"})
        for task, file in {"segment": "shapes-seg", "pose": "shapes-pose", "obb": "shapes-obb"}.items()
    },
}


def kind(file: Path) -> str:
    """What a file of ours holds: ``int8`` or ``float`` detections, ``single`` if a task's extra is in the same tensor.

    Raw files are ``levels``, ``merged`` or ``grid``. OpenVINO models are ``openvino int8``, ``float`` or ``raw``.
    """
    from yolo_edgequant import contract

    facts = contract.read(file)
    if file.is_dir():
        return f"openvino {facts.head}"
    if facts.raw is None:
        return "single" if facts.head == "int8" and facts.task != "detect" and _together(facts) else facts.head
    return str(facts.raw.arrangement)


def _together(facts: Any) -> bool:
    return not {"mask_coefficient", "angle", "kpts"} & {output.name for output in facts.outputs}


def prepare(out: Path, packages: Sequence[str] = PACKAGES) -> Path:
    """The Python of the programs' environment, made if it is not there; torch and Ultralytics are those of this one.

    Raises:
        RuntimeError: pip failed.
    """
    folder = out / "environment"
    python = folder / "bin" / "python"
    if not (folder / "ok").exists():
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        (own,) = folder.glob("lib/python*/site-packages")
        (own / "zz_installed.pth").write_text("\n".join(p for p in sys.path if p.endswith("-packages")) + "\n")
        said = subprocess.run([python, "-m", "pip", "install", "-q", *packages], capture_output=True, text=True)
        if said.returncode:
            raise RuntimeError(f"pip failed: {said.stderr.strip().splitlines()[-1]}")
        (folder / "ok").touch()
    return python


def squares(images: Iterable[np.ndarray], size: tuple[int, int], folder: Path) -> list[Path]:
    """Write images as they lie in an input of `size` (height, width)."""
    from yolo_edgequant.runtime.interpreter import Tensor
    from yolo_edgequant.runtime.letterbox import Letterbox

    fit = Letterbox(Tensor((1, *size, 3), np.dtype(np.uint8), 1 / 255), channels_last=True)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, image in enumerate(images):
        paths.append(folder / f"{number:03d}.png")
        cv2.imwrite(str(paths[-1]), fit(image)[0][0][..., ::-1])
    return paths


def input_size(file: Path) -> tuple[int, int]:
    """(height, width) of a file's input."""
    from yolo_edgequant import contract
    from yolo_edgequant.runtime.interpreter import open_file

    shape = open_file(file, 1).input.shape
    return shape[1:3] if contract.read(file).channels_last else shape[2:4]


def predictions(file: Path, task: str, images: Sequence[Path], **settings: Any) -> list[Objects]:
    """What `YOLO(file).predict` finds."""
    from ultralytics import YOLO

    import yolo_edgequant  # noqa: F401

    model, found = YOLO(file, task=task), []
    for path in images:
        result = model.predict(str(path), verbose=False, imgsz=max(input_size(file)), **settings)[0].cpu().numpy()
        boxes = result.obb if task == "obb" else result.boxes
        masks = None if result.masks is None else result.masks.data.astype(bool)
        points = None if result.keypoints is None else result.keypoints.xy
        places = boxes.xywhr if task == "obb" else boxes.xyxy
        found.append(Objects(places, boxes.conf, boxes.cls.astype(np.int64), masks, points))
    return found


def run(python: Path, consumer: Consumer, file: Path, task: str, images: Sequence[Path], work: Path) -> list[Objects]:
    """What a program finds.

    Raises:
        RuntimeError: it stops with an error; its last line.
    """
    from yolo_edgequant import contract

    size, classes = input_size(file), len(contract.read(file).names)
    job = {"file": str(file), "task": task, "images": [str(path) for path in images], "conf": consumer.conf}
    job |= {"iou": IOU, "imgsz": max(size), "classes": classes, "out": str(work / "found.json"), **consumer.settings}
    (work / "job.json").write_text(json.dumps(job))
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PYTHONPATH": str(ROOT)}
    environment |= {"YOLO_OFFLINE": "True", "YOLO_AUTOINSTALL": "False", "NO_ALBUMENTATIONS_UPDATE": "1"}
    command = [str(python), str(HERE / "programs" / f"{consumer.script}.py"), str(work / "job.json")]
    child = subprocess.run(command, capture_output=True, text=True, cwd=work, env=environment)
    if child.returncode:
        lines = [line for line in child.stderr.splitlines() if line.strip()]
        raise RuntimeError(lines[-1].strip()[:300] if lines else f"exit status {child.returncode}")
    return [Objects.read(row, size) for row in json.loads((work / "found.json").read_text())]


def check(consumer: Consumer, python: Path, file: Path, images: Sequence[Path], work: Path) -> Agreement:
    """Hold what a program finds with a file against what `predict` finds.

    Raises:
        RuntimeError: the program stops with an error.
    """
    from yolo_edgequant import contract

    task = contract.read(file).task
    found = run(python, consumer, file, task, images, work)
    reference = predictions(file, task, images, conf=consumer.conf, iou=IOU)
    candidates = predictions(file, task, images, conf=consumer.conf - 0.04 - consumer.score, iou=1.0, max_det=2000)
    pixels = consumer.pixels.get(task, 0.0)
    return compare(found, reference, candidates, consumer.conf, consumer.overlap, consumer.score, pixels)


def exports(out: Path) -> dict[str, Path]:
    """The small models' files, exported into a folder; those that are there are taken."""
    from ultralytics import YOLO

    import yolo_edgequant  # noqa: F401
    from yolo_edgequant.demo.dataset import data_set

    files = {}
    for name, (weights, arguments) in EXPORTS.items():
        folder = out / "files" / name.replace(" ", "-")
        written = sorted(folder.glob("*.tflite")) + sorted(folder.glob("*_openvino_model"))
        if not written:
            folder.mkdir(parents=True, exist_ok=True)
            model = YOLO(shutil.copy(ROOT / weights, folder))
            data = data_set(folder / "data", 24, 8, SIZE, seed=3, task=model.task)
            written = [Path(model.export(**arguments, quantize=8, data=data, split="train", imgsz=SIZE))]
        files[name] = written[0]
    return files


def drawn() -> list[np.ndarray]:
    """Twenty drawn images."""
    from yolo_edgequant.demo.dataset import picture

    return [picture(SIZE, np.random.default_rng(number))[0] for number in range(IMAGES)]


def real(folder: Path) -> list[np.ndarray]:
    """The first twenty images of a folder."""
    from yolo_edgequant.runtime.sources import images

    return [image for (_, image), _ in zip(images(str(folder)), range(IMAGES), strict=False)]


def title(file: Path) -> str:
    """What the table calls a file; OpenVINO models are mostly called alike, and are in folders that are not."""
    return f"{file.resolve().parent.name}/{file.name}" if file.is_dir() else file.stem


def table(results: dict[str, dict[str, Agreement | str]]) -> str:
    """The results in Markdown, a row a program and file; what failed in words. Columns: see :class:`Agreement`."""
    lines = [
        "| program | file | of `predict` | found | same | kept | lost | wrong | least IoU | score within | |",
        "|" + " --- |" * 11,
    ]
    for name, row in results.items():
        for file, result in row.items():
            if isinstance(result, str):
                lines.append(f"| {name} | {file} | | | | | | | | | FAILED: {result} |")
                continue
            extra = [f"masks IoU {np.mean(result.masks):.2f} on average"] if result.masks else []
            extra += [] if result.keypoints is None else [f"keypoints {result.keypoints:.1f} px"]
            if not result.accepted(bool(CONSUMERS[name].own_nms)):
                extra = ["FAILED", *extra, result.reason]
            counts = (result.reference, result.found, result.same, result.kept, result.lost, result.wrong)
            cells = [name, file, *map(str, counts), f"{result.overlap:.4f}", f"{result.score:.4f}", " ".join(extra)]
            lines.append("| " + " | ".join(cells) + " |")
    lines += [""] + [
        f"- {name}: its NMS {c.own_nms}." for name, c in CONSUMERS.items() if c.own_nms and name in results
    ]
    return "\n".join(lines)


def main() -> int:
    """Run the command that the package's description says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--out", type=Path, default=Path("consumers"))
    parser.add_argument("--images", type=Path, help="folder; drawn images without")
    parser.add_argument("--only", default="", help="names of programs with commas between")
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    files = {title(file): file.resolve() for file in options.files} if options.files else exports(out)
    images = drawn() if options.images is None else real(options.images)
    python, wanted = prepare(out), {name for name in options.only.split(",") if name}
    results: dict[str, dict[str, Agreement | str]] = {}
    for file_name, file in files.items():
        from yolo_edgequant import contract

        paths = squares(images, input_size(file), out / "images" / file_name.replace(" ", "-").replace("/", "-"))
        what, task = kind(file), contract.read(file).task
        for name, consumer in CONSUMERS.items():
            if what not in consumer.kinds or task not in consumer.tasks or (wanted and name not in wanted):
                continue
            row = results.setdefault(name, {})
            try:
                row[file_name] = check(consumer, python, file, paths, out)
            except RuntimeError as error:
                row[file_name] = str(error)
            print(f"== {name}, {file_name}: {row[file_name]}", flush=True)
    written = {n: {f: r if isinstance(r, str) else asdict(r) for f, r in row.items()} for n, row in results.items()}
    (out / "consumers.json").write_text(json.dumps(written, indent=1) + "\n")
    print(table(results))
    return int(
        not all(
            not isinstance(result, str) and result.accepted(bool(CONSUMERS[name].own_nms))
            for name, row in results.items()
            for result in row.values()
        )
    )


if __name__ == "__main__":
    sys.exit(main())
