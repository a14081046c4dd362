"""Does the package work with other releases of Ultralytics? One command, a table, and docs/versions.md printed by it.

Usage:
    python -m tests.versions [VERSION …] [--with PACKAGE==VERSION …] [--out FOLDER] [--jobs NAME,…]
        [--write docs/versions.md]

Without a version it takes those in VERSIONS; `latest` is the newest on the package index. A release's wheel is
fetched with pip and unpacked into FOLDER; a child process with it in front of its path runs the jobs, beside the
packages that are installed, or of those that `--with` fetches. Models are the small ones in this repository, images are
drawn, and accuracy is a share of the FP32 model's, in the same release and run. The exit status is 1 if a job failed or
kept less than its bound.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

HERE = Path(__file__).resolve().parents[1]
VERSIONS = (
    *("8.3.253", "8.4.0", "8.4.23", "8.4.31", "8.4.60", "8.4.82", "8.4.83", "8.4.100", "8.4.121", "8.4.141"),
    *("8.4.142", "8.4.160", "8.4.182", "8.4.190"),
)
SIZE = 160
BOUNDS = {"float": 0.97, "raw": 0.97, "int8": 0.90}
MODELS = {
    "detect": "yolo_edgequant/demo/shapes.pt",
    "segment": "tests/weights/shapes-seg.pt",
    "pose": "tests/weights/shapes-pose.pt",
    "obb": "tests/weights/shapes-obb.pt",
    "NMS-free": "tests/weights/shapes26.pt",
}


@dataclass(frozen=True)
class Result:
    """What came of a job.

    Attributes:
        share: of FP32's mAP50-95 that was kept; None of a job without a file.
        error: one line; None if all went well.
        refused: the error is one of ours, in one line, before any work.
        seconds: that it took.
    """

    share: float | None
    error: str | None
    refused: bool
    seconds: float

    @property
    def cell(self) -> str:
        """For the table."""
        if self.error is not None:
            return "refused" if self.refused else "FAILED"
        return "yes" if self.share is None else f"{self.share:.1%}"


def exports() -> dict[str, tuple[str, dict[str, Any]]]:
    """Each export by name: the model and the arguments besides the precision."""
    cases = {
        f"{format} {head}": ("detect", {"format": format, "head": head})
        for format in ("litert", "tflite", "openvino")
        for head in ("float", "raw", "int8")
    }
    return cases | {
        "saved_model float": ("detect", {"format": "saved_model", "head": "float"}),
        "segment tflite int8": ("segment", {"format": "tflite", "head": "int8"}),
        "pose openvino float": ("pose", {"format": "openvino", "head": "float"}),
        "obb tflite raw": ("obb", {"format": "tflite", "head": "raw"}),
        "NMS-free litert float": ("NMS-free", {"format": "litert", "head": "float"}),
        "NMS-free tflite int8": ("NMS-free", {"format": "tflite", "head": "int8"}),
        "NMS-free openvino float": ("NMS-free", {"format": "openvino", "head": "float"}),
    }


class Jobs:
    """The jobs in one release, in this process.

    Args:
        folder: to work in.
    """

    def __init__(self, folder: Path) -> None:
        from ultralytics.utils import DEFAULT_CFG_DICT

        self.folder = folder
        self.int8 = {"quantize": 8} if "quantize" in DEFAULT_CFG_DICT else {"int8": True}
        self.nms_free = {"end2end": True} if "end2end" in DEFAULT_CFG_DICT else {"nms": False}

    def all(self) -> dict[str, Callable[[], float | None]]:
        """Each job by name."""
        jobs: dict[str, Callable[[], float | None]] = {"apply and undo": self.undo, "FP32 untouched": self.untouched}
        for name, (model, arguments) in exports().items():
            jobs[name] = lambda model=model, arguments=arguments: self.export(model, arguments)
        jobs |= {"train relu6": self.train, "finetune relu6": self.finetune, "finetune tflite": self.qat}
        return jobs

    @cache  # noqa: B019 - one object a process
    def data(self, model: str) -> Path:
        """Drawn images for a model's task."""
        from yolo_edgequant.demo.dataset import data_set

        task = "detect" if model == "NMS-free" else model
        return data_set(self.folder / f"{model}-data", 64, 100, SIZE, seed=1, task=task)

    def model(self, name: str) -> Any:
        """A model of this repository, from a copy in the folder."""
        from ultralytics import YOLO

        return YOLO(shutil.copy(HERE / MODELS[name], self.folder))

    @cache  # noqa: B019 - one object a process
    def fp32(self, name: str) -> float:
        """The accuracy of a model in PyTorch."""
        from yolo_edgequant.upstream.validation import accuracy

        return accuracy(self.model(name), self.data(name), imgsz=SIZE, **self._arguments(name))

    def export(self, name: str, arguments: dict[str, Any]) -> float:
        """Export a model, validate the file, and return the share of FP32's accuracy that it keeps."""
        from yolo_edgequant.upstream.validation import accuracy

        data, model = self.data(name), self.model(name)
        file = Path(
            model.export(**arguments, **self.int8, **self._arguments(name), data=data, split="train", imgsz=SIZE)
        )
        if arguments["format"] == "saved_model":
            file /= f"{Path(MODELS[name]).stem}_integer_quant.tflite"
        share = accuracy(file, data, model.task, imgsz=SIZE) / self.fp32(name)
        least = BOUNDS[arguments["head"]]
        assert share >= least, f"kept {share:.1%} of FP32's mAP50-95, less than {least:.0%}"
        return share

    def _arguments(self, name: str) -> dict[str, Any]:
        return self.nms_free if name == "NMS-free" else {}

    def undo(self) -> None:
        """Apply all patches, and put back the very objects that they replaced."""
        import importlib

        import yolo_edgequant
        from yolo_edgequant.patches import REGISTRY

        def targets() -> dict[str, Any]:
            there = REGISTRY._applicable()
            return {p.target: REGISTRY._target(p, importlib.import_module(p.module))[1] for p in there}

        yolo_edgequant.disable()
        upstream = targets()
        assert upstream, "nothing to patch"
        assert not any(hasattr(function, "__wrapped__") and "yolo_edgequant" in str(function) for function in upstream)
        yolo_edgequant.enable()
        assert all(after.__wrapped__ is upstream[name] for name, after in targets().items())
        yolo_edgequant.disable()
        assert all(after is upstream[name] for name, after in targets().items())
        yolo_edgequant.enable()

    def untouched(self) -> None:
        """Export FP32 with and without the patches; the weights are the same bytes."""
        import yolo_edgequant

        def weights() -> str:
            (file,) = Path(self.model("detect").export(format="openvino", imgsz=SIZE)).glob("*.bin")
            return hashlib.sha256(file.read_bytes()).hexdigest()

        patched = weights()
        yolo_edgequant.disable()
        try:
            assert weights() == patched
        finally:
            yolo_edgequant.enable()

    def train(self) -> None:
        """One epoch with the activations swapped."""
        from ultralytics import YOLO

        from yolo_edgequant.upstream.blocks import swapped

        model = self.model("detect")
        out = self.folder / "trained"
        model.train(data=self.data("detect"), activation="relu6", **self._schedule(out))
        assert swapped(YOLO(out / "run" / "weights" / "last.pt").model) == "relu6"

    def finetune(self) -> None:
        """One epoch with the activations swapped and the original as teacher."""
        self._finetuned("relu6", activation="relu6")

    def qat(self) -> float:
        """One quantization-aware epoch; its file, with the ranges that were trained."""
        from ultralytics import YOLO

        from yolo_edgequant.upstream.validation import accuracy

        best = self._finetuned("qat", target="tflite").checkpoint
        file = YOLO(best).export(format="tflite", head="raw", imgsz=SIZE, **self.int8)
        share = accuracy(file, self.data("detect"), "detect", imgsz=SIZE) / self.fp32("detect")
        assert share >= BOUNDS["raw"], f"kept {share:.1%} of FP32's mAP50-95"
        return share

    def _finetuned(self, name: str, **what: Any) -> Any:
        import yolo_edgequant

        arguments = self._schedule(self.folder)
        del arguments["project"], arguments["name"]
        return yolo_edgequant.finetune(
            self.model("detect"), self.data("detect"), out=self.folder / name, **what, **arguments
        )

    def _schedule(self, out: Path) -> dict[str, Any]:
        shared = {"epochs": 1, "batch": 8, "imgsz": SIZE, "workers": 0, "device": "cpu", "plots": False}
        return shared | {"project": str(out), "name": "run"}


def run_jobs(out: Path, wanted: set[str]) -> None:
    """Run the jobs of this process's release, and write what came of them after each."""
    import yolo_edgequant
    from yolo_edgequant.errors import EdgeQuantError

    file, results = out / "results.json", {}
    for name, job in Jobs(out).all().items():
        if wanted and name not in wanted:
            continue
        began, share, error, refused = time.monotonic(), None, None, False
        try:
            share = job()
        except EdgeQuantError as reason:
            error, refused = str(reason), "\n" not in str(reason)
        except Exception as reason:  # whatever a release has in store is a row of the table
            error = f"{type(reason).__name__}: {reason}"
            import traceback

            traceback.print_exc()
            yolo_edgequant.enable()
        results[name] = asdict(Result(share, error, refused, time.monotonic() - began))
        file.write_text(json.dumps(results, indent=1) + "\n")
        print(f"== {name}: {results[name]}", flush=True)


def unpacked(version: str, out: Path, package: str = "ultralytics") -> Path:
    """The folder with a release's wheel unpacked; fetched if it is not there."""
    folder = out / "wheels" / (version if package == "ultralytics" else f"{package}-{version}")
    if not any(folder.glob("*.dist-info")):
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder)]
        subprocess.run([*command, f"{package}=={version}"], check=True, stderr=subprocess.DEVNULL)
        (wheel,) = folder.glob("*.whl")
        zipfile.ZipFile(wheel).extractall(folder)
        wheel.unlink()
    return folder


def unpack_source(version: str, folder: Path, wanted: Callable[[PurePosixPath], bool] = lambda _: True) -> None:
    """Fetch a release's source distribution, and unpack what is wanted of it, or all, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "ultralytics"]
    subprocess.run([*command, "-d", str(folder), f"ultralytics=={version}"], check=True, stderr=subprocess.DEVNULL)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            path = PurePosixPath(*PurePosixPath(member.name).parts[1:])
            if wanted(path):
                member.uid, member.gid = os.getuid(), os.getgid()  # or git takes the folder for another user's
                tar.extract(member.replace(name=str(path)), folder, filter="data")
    archive.unlink()


def newest() -> str:
    """The newest release on the package index."""
    command = [sys.executable, "-m", "pip", "index", "versions", "ultralytics"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return said.partition("(")[2].partition(")")[0]


def run_version(version: str, out: Path, jobs: str, others: Sequence[str] = ()) -> dict[str, Result]:
    """Run the jobs in a child process with a release in front of its path.

    Args:
        version: of Ultralytics.
        out: the folder for the wheels, and a folder of this run.
        jobs: their names with commas between; none for all.
        others: PACKAGE==VERSION, each in front of the path, too; what they depend on is as installed.
    """
    folder = out / row_name(version, others).replace(", ", "+").replace(" ", "-")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    wheels = [unpacked(pinned, out, package) for package, _, pinned in (other.partition("==") for other in others)]
    paths = os.pathsep.join(map(str, [*wheels, unpacked(version, out), HERE]))
    environment = os.environ | {
        "PYTHONPATH": paths,
        "PYTHONSAFEPATH": "1",  # or the folders beside this file could be taken for packages
        "YOLO_CONFIG_DIR": str(folder),  # releases reset each other's settings
        "YOLO_AUTOINSTALL": "False",
        "YOLO_OFFLINE": "True",
    }
    command = [sys.executable, str(Path(__file__).resolve()), "--child", "--out", str(folder), "--jobs", jobs]
    with (folder / "log.txt").open("w") as log:
        child = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for line in child.stdout:
            log.write(line)
            if line.startswith("== "):
                print(f"{row_name(version, others)} {line[3:].rstrip()}", flush=True)
        child.wait()
    results = {}
    with suppress(FileNotFoundError):
        results = {k: Result(**v) for k, v in json.loads((folder / "results.json").read_text()).items()}
    if child.returncode:
        results["the process"] = Result(None, f"exit status {child.returncode}, see {folder / 'log.txt'}", False, 0.0)
    return results


def row_name(version: str, others: Sequence[str] = ()) -> str:
    """What the table calls a run."""
    return ", ".join([version, *(other.replace("==", " ") for other in others)])


def table(results: dict[str, dict[str, Result]]) -> str:
    """The results in Markdown, a column a version, and what was refused or failed below."""
    names = list(dict.fromkeys(name for row in results.values() for name in row))
    lines = ["| | " + " | ".join(results) + " |", "| --- |" + " --- |" * len(results)]
    for name in names:
        cells = [row[name].cell if name in row else "" for row in results.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines.append(
        "| minutes | "
        + " | ".join(f"{sum(r.seconds for r in row.values()) / 60:.1f}" for row in results.values())
        + " |"
    )
    errors: dict[str, list[str]] = {}
    for version, row in results.items():
        for name, result in row.items():
            if result.error is not None:
                line = " ".join(result.error.split())[:400]
                errors.setdefault(line, []).append(f"{version} {name}")
    for line, where in errors.items():
        shown = ", ".join(where[:3]) + (f" and {len(where) - 3} more" if len(where) > 3 else "")
        lines += ["", f"- {shown}: {line}"]
    return "\n".join(lines)


def main() -> int:
    """Run the command that the module's description says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*")
    parser.add_argument("--with", action="append", default=[], metavar="PACKAGE==VERSION", dest="others")
    parser.add_argument("--out", type=Path, default=Path("versions"))
    parser.add_argument("--jobs", default="")
    parser.add_argument("--write", type=Path)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    out = options.out.resolve()
    if options.child:
        run_jobs(out, {name for name in options.jobs.split(",") if name})
        return 0
    versions = [newest() if version == "latest" else version for version in options.versions or VERSIONS]
    results = {row_name(v, options.others): run_version(v, out, options.jobs, options.others) for v in versions}
    (out / "versions.json").write_text(
        json.dumps({v: {k: asdict(r) for k, r in row.items()} for v, row in results.items()}, indent=1) + "\n"
    )
    text = table(results)
    print(text)
    if options.write is not None:
        _put_in(options.write, text)
    return int(any(r.error is not None and not r.refused for row in results.values() for r in row.values()))


def _put_in(page: Path, text: str) -> None:
    """Put the table into a page, between its marks."""
    start, end = "<!-- python -m tests.versions -->", "<!-- end -->"
    before, _, rest = page.read_text().partition(start)
    _, _, after = rest.partition(end)
    machine = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}."
    page.write_text(f"{before}{start}\n\n{machine}\n\n{text}\n\n{end}{after}")


if __name__ == "__main__":
    sys.exit(main())
