"""Reads damaged files: each has to work, or to end in one :class:`EdgeQuantError` of one line.

Usage:
    python -m tests.fuzz [--rounds N | --minutes M] [--seed S] [--first ROUND] [--json FILE] [FILES...]

FILES are ``.tflite`` files and OpenVINO folders with our metadata; without any, three small ones are made. In each
round one of them is damaged, ``inspection`` looks into it, ``contract.read`` reads it, and ``runtime.Detector`` runs an
image through it. Findings are any other exception, an error of several lines, a crash of the process, and more than 10
seconds. Rounds run in a child process, which is started again after a crash, so the run goes on.

Damage of the model leaves the checksum as it was, so no interpreter sees it, and ``inspection`` runs none: against
files that are made to crash an interpreter, and have a checksum that is right, nothing here helps.

What a round does follows from SEED, its number and the file alone: ``--first ROUND --rounds 1`` repeats it. With
``--minutes`` the round in which they are over is the last. The exit
status is 1 if there are findings; FILE has them with what was done and the traceback.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import os
import random
import select
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LIMIT = 10.0  # seconds that a round may take
_START = 120.0  # seconds that a child may take to start

VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 1.5, 10**9, 10**400, float("nan"), float("inf"), "", "x" * 10_000, "two\nlines"),
    *([], {}, [[]], [None], {"0": None}, "\ud800"),
)

#: Values that a key could have, so that damage gets past the reading of keys.
PLAUSIBLE: dict[str, tuple[Any, ...]] = {
    "task": ("detect", "segment", "pose", "obb", "classify", "depth"),
    "names": ({"0": "a"}, {str(i): "b" for i in range(5)}, {str(i): "c" for i in range(80)}),
    "end2end": (True, False),
    "nms": (True, False),
    "kpt_shape": ([1, 2], [5, 3], [1 << 20, 3]),
    "head": ("int8", "float", "raw"),
    "io": ("int8", "uint8", "float"),
    "layout": ("NHWC", "NCHW"),
    "boxes": ("normalised", "pixels"),
    "order": ("cells, channels", "channels, cells"),
    "arrangement": ("levels", "merged", "grid"),
    "strides": ([8, 16, 32], [8, 8, 8], [32], [1], [1 << 20]),
    "stride": (8, 32, 1 << 20),
    "reg_max": (1, 16, 1024),
    "keypoint": ([2.0, -0.5], [1.0, 0.0]),
    "name": ("detections", "prototypes", "mask_coefficient", "angle", "kpts", "boxes", "scores", "visibility"),
    "outputs": ([{"name": "detections"}], [{"name": "detections"}, {"name": "prototypes"}], [{"name": "angle"}]),
    "turned": (False,),
    "top_k": ({"count": 300, "agnostic": False}, {"count": 1, "agnostic": True}, {"count": 1 << 20, "agnostic": False}),
    "raw": ({"outputs": [], "order": "cells, channels", "strides": [8], "reg_max": 1},),
    "verified": ({"images": 1, "objects": 1, "agreement": 1, "snr_db": {"two\nlines": "x"}},),
    "precision": ({"in_float": 3, "retention": 0.99},),
    "trained": ({"target": "tflite", "granularity": "channel"},),
    "activation": ("relu6",),
    "target": ("nxp-imx8mp", "a device that nobody knows"),
}

TEXTS = (
    *(b"", b"[]", b"null", b"{", b"{}", b'"text"', b"1", b"NaN", b"[" * 100_000, b'{"a":' * 100_000),
    *(b"\xff\xfe\xfa", b"\xef\xbb\xbf{}", b"1" * 100_000, b'{"edgequant": ' + b"[" * 500 + b"]" * 500 + b"}"),
)

Files = dict[str, bytes]


@dataclass(frozen=True)
class Sample:
    """A file to damage.

    Attributes:
        name: for the table.
        files: contents by name; one for a ``.tflite`` file.
    """

    name: str
    files: Mapping[str, bytes]

    @property
    def is_folder(self) -> bool:
        return "metadata.json" in self.files

    @classmethod
    def of(cls, path: Path) -> Sample:
        """Read a file or a folder."""
        parts = sorted(path.iterdir()) if path.is_dir() else [path]
        return cls(path.name, {part.name: part.read_bytes() for part in parts if part.is_file()})

    def write(self, files: Mapping[str, bytes], folder: Path) -> Path:
        """Write other contents; the path to read."""
        place = folder / self.name
        if not self.is_folder:
            place.write_bytes(files[self.name])
            return place
        place.mkdir()
        for name, content in files.items():
            (place / name).write_bytes(content)
        return place


# What damages a file: each takes a sample and a source of chance, and gives the contents and what was done.


def _truncated(sample: Sample, chance: random.Random) -> tuple[Files, str]:
    name = _some_file(sample, chance)
    content = sample.files[name]
    length = chance.choice((0, 1, len(content) - 1, chance.randrange(len(content)), _start(content) or 0))
    return {**sample.files, name: content[:length]}, f"{name} cut to {length} of {len(content)} bytes"


def _bits(part: str) -> Callable[[Sample, random.Random], tuple[Files, str]]:
    def flip(sample: Sample, chance: random.Random) -> tuple[Files, str]:
        name, low, high = _part(sample, chance, part)
        content = bytearray(sample.files[name])
        places = [chance.randrange(low, high) for _ in range(chance.choice((1, 1, 2, 8, 64)))]
        for place in places:
            content[place] ^= 1 << chance.randrange(8)
        return {**sample.files, name: bytes(content)}, f"{name}: bits at {places[:8]}"

    return flip


def _run(part: str) -> Callable[[Sample, random.Random], tuple[Files, str]]:
    def overwrite(sample: Sample, chance: random.Random) -> tuple[Files, str]:
        name, low, high = _part(sample, chance, part)
        content = bytearray(sample.files[name])
        start = chance.randrange(low, high)
        length = min(high - start, chance.choice((1, 4, 30, 500)))
        filling = chance.choice((bytes(length), b"\xff" * length, chance.randbytes(length)))
        content[start : start + length] = filling
        return {**sample.files, name: bytes(content)}, f"{name}: {length} bytes from {start}"

    return overwrite


def _appended(sample: Sample, chance: random.Random) -> tuple[Files, str]:
    name = _some_file(sample, chance)
    more = chance.choice((b"\0", b"PK\5\6", chance.randbytes(30), chance.randbytes(70_000), sample.files[name]))
    return {**sample.files, name: sample.files[name] + more}, f"{name}: {len(more)} bytes more"


def _key(sample: Sample, chance: random.Random) -> tuple[Files, str]:
    metadata = _metadata(sample)
    path = chance.choice(list(_paths(metadata)))
    place = _at(metadata, path[:-1])
    if chance.random() < 0.1:
        del place[path[-1]]
        done = "deleted"
    else:
        place[path[-1]] = value = copy.deepcopy(chance.choice(VALUES))
        done = f"= {str(value)[:40]!r}"
    return _with_metadata(sample, metadata, chance), f"{'.'.join(map(str, path))} {done}"


def _plausible(sample: Sample, chance: random.Random) -> tuple[Files, str]:
    """One to three keys with a value that they could have; some of them new."""
    metadata, done = _metadata(sample), []
    for _ in range(chance.choice((1, 1, 2, 3))):
        mappings = [path for path in ((), *_paths(metadata)) if isinstance(_at(metadata, path), dict)]
        path = chance.choice(mappings)
        place = _at(metadata, path)
        known = [key for key in place if key in PLAUSIBLE]
        key = chance.choice(known) if known and chance.random() < 0.7 else chance.choice(list(PLAUSIBLE))
        place[key] = copy.deepcopy(chance.choice(PLAUSIBLE[key]))
        done.append(f"{'.'.join(map(str, (*path, key)))} = {str(place[key])[:40]}")
    return _with_metadata(sample, metadata, chance), ", ".join(done)


def _list(sample: Sample, chance: random.Random) -> tuple[Files, str]:
    """Entries of a list lost, doubled or in another order."""
    metadata = _metadata(sample)
    path = chance.choice([path for path in _paths(metadata) if isinstance(_at(metadata, path), list)])
    entries = _at(metadata, path)
    action = chance.choice(("lost", "doubled", "shuffled", "a thousand times"))
    if action == "shuffled" or not entries:
        chance.shuffle(entries)
    elif action == "lost":
        entries.pop(chance.randrange(len(entries)))
    else:
        entries.extend(entries * (1000 if action == "a thousand times" else 1))
    return _with_metadata(sample, metadata, chance), f"{'.'.join(map(str, path))} {action}"


def _text(sample: Sample, chance: random.Random) -> tuple[Files, str]:
    text = chance.choice(TEXTS)
    return _with_text(sample, text), f"metadata.json of {text[:20]!r}, {len(text)} bytes"


def _archive(sample: Sample, chance: random.Random) -> tuple[Files, str]:
    """The ZIP archive broken on purpose."""
    content = sample.files[sample.name]
    model, text = content[: _start(content)], json.dumps(_metadata(sample)).encode()
    archive = bytearray(content[len(model) :])
    central, end = archive.index(b"PK\1\2"), archive.rindex(b"PK\5\6")

    def whole(*entries: tuple[str, bytes], **how: Any) -> bytes:
        buffer = io.BytesIO(model)
        with warnings.catch_warnings(), zipfile.ZipFile(buffer, "a", **how) as made:
            warnings.simplefilter("ignore")  # two of one name
            for name, data in entries:
                made.writestr(zipfile.ZipInfo(name), data, made.compression)  # by name alone, it has today's time
        return buffer.getvalue()

    def field(at: int, size: str) -> bytes:
        bits = 8 * struct.calcsize(f"<{size}")
        value = chance.choice((0, 1, (1 << bits) - 1, 1 << (bits - 1), chance.getrandbits(bits)))
        struct.pack_into(f"<{size}", archive, at, value)
        return model + bytes(archive)

    other = chance.choice(TEXTS)
    fields = (
        *((central + at, "H") for at in (4, 6, 8, 10, 28, 30, 32, 34)),
        *((central + at, "L") for at in (16, 20, 24, 42)),
    )
    fields += (*((end + at, "H") for at in (4, 6, 8, 10, 20)), *((end + at, "L") for at in (12, 16)))
    local = (*((at, "H") for at in (4, 6, 8, 26, 28)), *((at, "L") for at in (14, 18, 22)))
    ways: dict[str, Callable[[], bytes]] = {
        "a field": lambda: field(*chance.choice((*fields, *local))),
        "encrypted": lambda: field(central + 8, "H"),
        "two metadata.json, the last another": lambda: whole(("metadata.json", text), ("metadata.json", other)),
        "two metadata.json, the first another": lambda: whole(("metadata.json", other), ("metadata.json", text)),
        "no metadata.json": lambda: whole(("labels.txt", text)),
        "no entry": lambda: whole(),
        "a folder of that name": lambda: whole(("metadata.json/", b"")),
        "upper case": lambda: whole(("METADATA.JSON", text)),
        "stored": lambda: whole(("metadata.json", text)),
        "another compression": lambda: whole(
            ("metadata.json", text), compression=chance.choice((zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
        ),
        "17 MB": lambda: whole(("metadata.json", text + b" " * (17 << 20)), compression=zipfile.ZIP_DEFLATED),
        "twice": lambda: model + bytes(archive) + bytes(archive),
        "without its end": lambda: model + bytes(archive[:end]),
        "its end alone": lambda: model + bytes(archive[end:]),
        "in front": lambda: bytes(archive) + model,
        "alone": lambda: bytes(archive),
    }
    way = chance.choice(["a field"] * 12 + list(ways))
    return {sample.name: ways[way]()}, f"archive: {way}"


def _missing(sample: Sample, chance: random.Random) -> tuple[Files, str]:
    name = _some_file(sample, chance)
    return {key: content for key, content in sample.files.items() if key != name}, f"{name} missing"


def _more(sample: Sample, chance: random.Random) -> tuple[Files, str]:
    name = _some_file(sample, chance)
    return {**sample.files, f"second{Path(name).suffix}": sample.files[name]}, f"{name} twice"


DAMAGE: dict[str, Callable[[Sample, random.Random], tuple[Files, str]]] = {
    "cut off": _truncated,
    "bits of the model": _bits("model"),
    "bytes of the model": _run("model"),
    "bits of the metadata": _bits("metadata"),
    "bytes of the metadata": _run("metadata"),
    "bytes appended": _appended,
    "one key": _key,
    "plausible keys": _plausible,
    "a list": _list,
    "metadata.json": _text,
    "the archive": _archive,
    "a file missing": _missing,
    "a file too many": _more,
}
_WEIGHTS = {"one key": 10, "plausible keys": 5, "the archive": 4}
_FOR_FOLDERS = {"a file missing", "a file too many"}


def damaged(sample: Sample, seed: int, number: int) -> tuple[str, Files, str]:
    """A sample as round `number` damages it: the kind of damage, the contents, and what was done."""
    chance = random.Random(f"{seed} {number} {sample.name}")
    kinds = [kind for kind in DAMAGE if kind not in ({"the archive"} if sample.is_folder else _FOR_FOLDERS)]
    (kind,) = chance.choices(kinds, [_WEIGHTS.get(kind, 1) for kind in kinds])
    return kind, *DAMAGE[kind](sample, chance)


def _start(content: bytes) -> int | None:
    """Where the archive begins."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return None
    return min(entry.header_offset for entry in zipfile.ZipFile(io.BytesIO(content)).infolist())


def _some_file(sample: Sample, chance: random.Random) -> str:
    return chance.choice(sorted(name for name, content in sample.files.items() if content))


def _part(sample: Sample, chance: random.Random, part: str) -> tuple[str, int, int]:
    """A file and the range of bytes in it that are the model's, or the metadata's."""
    if not sample.is_folder:
        (content,) = sample.files.values()
        start = _start(content)
        return (sample.name, 0, start) if part == "model" else (sample.name, start, len(content))
    names = [name for name in sample.files if Path(name).suffix in {".xml", ".bin"}]
    name = chance.choice(sorted(names)) if part == "model" else "metadata.json"
    return name, 0, len(sample.files[name])


def _metadata(sample: Sample) -> Any:
    if sample.is_folder:
        return json.loads(sample.files["metadata.json"])
    (content,) = sample.files.values()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return json.loads(archive.read("metadata.json"))


def _with_metadata(sample: Sample, metadata: dict[str, Any], chance: random.Random) -> Files:
    """The contents with other metadata, whose checksum is right but for one time in ten."""
    ours = metadata.get("edgequant")
    if chance.random() < 0.1 and isinstance(ours, dict) and isinstance(ours.get("checksum"), int):
        ours["checksum"] ^= 1
    return _with_text(sample, json.dumps(metadata).encode())


def _with_text(sample: Sample, text: bytes) -> Files:
    if sample.is_folder:
        return {**sample.files, "metadata.json": text}
    (content,) = sample.files.values()
    buffer = io.BytesIO(content[: _start(content)])
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("metadata.json"), text, archive.compression)
    return {sample.name: buffer.getvalue()}


def _paths(values: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every key at every depth, of lists by index."""
    entries = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in entries:
        yield (*above, key)
        yield from _paths(value, (*above, key))


def _at(values: Any, path: Sequence[Any]) -> Any:
    for key in path:
        values = values[key]
    return values


# The child: it reads one damaged file after the other.


def verdict(read: Callable[[], Any]) -> dict[str, str]:
    """How reading ended: ``works``, ``refused`` with the error's type, or a ``finding`` with a text."""
    from yolo_edgequant.errors import EdgeQuantError

    try:
        read()
    except EdgeQuantError as error:
        text = str(error)
        if len(text.splitlines()) != 1 or len(text) > 1000:
            return {"outcome": "finding", "text": f"{type(error).__name__} of {len(text)} characters: {text[:2000]!r}"}
        return {"outcome": "refused", "error": type(error).__name__, "text": text}
    except BaseException:
        return {"outcome": "finding", "text": traceback.format_exc()[-4000:]}
    return {"outcome": "works"}


def read(path: Path) -> None:
    """Read a file's contract, and run an image through it."""
    import numpy as np

    from yolo_edgequant import contract
    from yolo_edgequant.runtime import Detector

    contract.read(path)
    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    image[20:80, 30:90] = (40, 220, 40)  # a square, so that something is found
    Detector(path, conf=0.01, threads=1)(image).as_dicts()


def inspect(path: Path) -> None:
    """Inspect a file, and write down all that is to be said of it."""
    from yolo_edgequant.inspection import report
    from yolo_edgequant.inspection.examine import examine

    inspection = examine(path, "nxp-imx93")
    report.as_json(report.as_dict(inspection))
    report.tables(inspection)


def _serve(folder: Path) -> None:
    """Answer the parent's lines, one round each."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the interpreters print is no answer
    samples = {path.name: Sample.of(path) for path in folder.iterdir()}
    print(json.dumps({"outcome": "ready"}), file=answers, flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        sample = samples[task["sample"]]
        _, files, _ = damaged(sample, task["seed"], task["round"])
        with tempfile.TemporaryDirectory() as place:
            path = sample.write(files, Path(place))
            verdicts = [verdict(lambda path=path, reader=reader: reader(path)) for reader in (inspect, read)]
            finding = next((answer for answer in verdicts if answer["outcome"] == "finding"), verdicts[-1])
            print(json.dumps(finding), file=answers, flush=True)


class Child:
    """A process that answers lines; started again after it died or was too slow.

    Args:
        command: of the process, whose first answer says that it is ready.
        limit: seconds for an answer.
    """

    def __init__(self, command: Sequence[str | Path], limit: float = LIMIT) -> None:
        self._command, self._limit = command, limit
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def ask(self, task: Mapping[str, Any]) -> dict[str, str]:
        """The answer to a task; a finding if there is none."""
        if self._process is None:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=ROOT,
                bufsize=0,
            )
            if self._answer(_START)["outcome"] != "ready":
                raise RuntimeError(f"the child process did not start: {' '.join(map(str, self._command))}")
        try:
            self._process.stdin.write(json.dumps(task).encode() + b"\n")
        except BrokenPipeError:  # it died after its last answer
            return self._ended()
        return self._answer(self._limit)

    def _answer(self, limit: float) -> dict[str, str]:
        readable, _, _ = select.select([self._process.stdout], [], [], limit)
        if not readable:
            self._stop()
            return {"outcome": "finding", "text": f"no answer in {limit:g} s"}
        line = self._process.stdout.readline()
        return json.loads(line) if line else self._ended()

    def _ended(self) -> dict[str, str]:
        status = self._process.wait()
        self._stop()
        return {"outcome": "finding", "text": f"the process crashed, exit status {status}"}

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                stream.close()
            self._process = None


# The parent.


@dataclass(frozen=True)
class Round:
    """What a round did and how it ended; `answer` as from :func:`verdict`."""

    number: int
    sample: str
    kind: str
    done: str
    answer: Mapping[str, str]


def fuzz(samples: Sequence[Sample], seed: int, rounds: int | None, first: int = 0) -> Iterator[Round]:
    """Run rounds, the samples in turns; without end if no number of them is given.

    Raises:
        RuntimeError: a sample does not work before it is damaged.
    """
    for sample in samples:
        with tempfile.TemporaryDirectory() as place:
            answer = verdict(lambda: read(sample.write(sample.files, Path(place))))  # noqa: B023
        if answer["outcome"] != "works":
            raise RuntimeError(f"'{sample.name}' does not work as it is: {answer['text']}")
    with tempfile.TemporaryDirectory() as place:
        for sample in samples:
            sample.write(sample.files, Path(place))
        with Child([sys.executable, "-m", "tests.fuzz", "--serve", place]) as child:
            for number in count(first) if rounds is None else range(first, first + rounds):
                sample = samples[number % len(samples)]
                kind, _, done = damaged(sample, seed, number)
                answer = child.ask({"sample": sample.name, "seed": seed, "round": number})
                yield Round(number, sample.name, kind, done, answer)


def until(rounds: Iterable[Round], seconds: float) -> Iterator[Round]:
    """Rounds, of which the last is the one in which the time is over."""
    end = time.monotonic() + seconds
    for one in rounds:
        yield one
        if time.monotonic() >= end:
            return


def small_tflite(folder: Path) -> list[Path]:
    """The committed detector as a raw and as an int8 file."""
    import lzma

    import numpy as np

    from tests import graphs
    from yolo_edgequant import contract
    from yolo_edgequant.options import IO, Granularity, Head
    from yolo_edgequant.tflite.calibrated import calibrate
    from yolo_edgequant.tflite.graph import Graph

    content = lzma.decompress((ROOT / "tests" / "weights" / "detector.tflite.xz").read_bytes())
    images = list(np.random.default_rng(0).random((2, 1, 160, 160, 3), np.float32))
    paths = []
    for head, float_content in ((Head.RAW, graphs.raw_detector(content)), (Head.INT8, content)):
        path, facts = folder / f"{head}.tflite", graphs.contract(str(head))
        path.write_bytes(calibrate(Graph(float_content), images).quantize(head, Granularity.CHANNEL, IO.INT8))
        contract.append(path, facts, graphs.upstream(facts))
        paths.append(path)
    return paths


def small_openvino(folder: Path) -> Path:
    """A raw file of one level: a convolution with the stride of the level."""
    import numpy as np
    import openvino as ov
    from openvino import opset13 as ops

    from tests import graphs
    from yolo_edgequant import contract
    from yolo_edgequant.contract import Output, Raw

    random_ = np.random.default_rng(0)
    image = ops.parameter([1, 3, 64, 64], np.float32, name="image")
    results = []
    for channels in (4, len(graphs.NAMES)):
        weights = random_.normal(0, 0.05, (channels, 3, 32, 32)).astype(np.float32)
        maps = ops.convolution(image, weights, [32, 32], [0, 0], [0, 0], [1, 1])
        results.append(ops.result(ops.reshape(maps, [1, channels, 4], False)))
    place = folder / "raw_openvino_model"
    place.mkdir()
    ov.save_model(ov.Model(results, [image]), place / "raw.xml", False)
    outputs = (Output("boxes", 32), Output("scores", 32))
    facts = graphs.contract("raw", io="float", channels_last=False, outputs=outputs, strides=(32,), raw=Raw(False, 1))
    metadata = contract.beside(place, facts, graphs.upstream(facts, 64))
    (place / "metadata.yaml").write_text(json.dumps(metadata))
    return place


def main() -> int:
    from importlib.util import find_spec

    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--rounds", type=int, default=2000)
    length.add_argument("--minutes", type=float, help="read files for so long instead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first round")
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        _serve(arguments.serve)
        return 0
    console = Console()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        paths = arguments.files
        if not paths:
            paths = small_tflite(Path(place))
            if find_spec("openvino") is not None:
                paths.append(small_openvino(Path(place)))
        samples = [Sample.of(path) for path in paths]
    if len({sample.name for sample in samples}) < len(samples):
        parser.error("two files have the same name")
    number = None if arguments.minutes is not None else arguments.rounds
    run = fuzz(samples, arguments.seed, number, arguments.first)
    if arguments.minutes is not None:
        run = until(run, 60 * arguments.minutes)
    rounds = list(track(run, "reading damaged files", total=number, console=console))
    seconds = time.perf_counter() - started
    counts = Counter((r.kind, r.answer["outcome"]) for r in rounds)
    outcomes = {kind: {name: counts[kind, name] for name in ("works", "refused", "finding")} for kind in DAMAGE}
    table = Table("damage", title=f"{len(rounds)} rounds in {seconds:.0f} s")
    for column in ("rounds", "works", "refused", "findings"):
        table.add_column(column, justify="right")
    for kind, row in outcomes.items():
        table.add_row(kind, str(sum(row.values())), *map(str, row.values()))
    table.add_section()
    totals = [sum(column) for column in zip(*(row.values() for row in outcomes.values()), strict=True)]
    table.add_row("all", str(len(rounds)), *map(str, totals))
    console.print(table)
    findings = [
        {"round": r.number, "file": r.sample, "kind": r.kind, "done": r.done, **r.answer}
        for r in rounds
        if r.answer["outcome"] == "finding"
    ]
    report = {
        "rounds": len(rounds),
        "first": arguments.first,
        "seed": arguments.seed,
        "seconds": round(seconds, 1),
        "files": [sample.name for sample in samples],
        "outcomes": outcomes,
        "errors": Counter(r.answer["error"] for r in rounds if r.answer["outcome"] == "refused"),
        "findings": findings,
    }
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report, indent=1))
        console.print(f"results: {arguments.json}")
    for finding in findings[:20]:
        last = finding["text"].strip().splitlines()[-1]
        console.print(f"round {finding['round']}, {finding['file']}, {finding['done']}: {last}", markup=False)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
