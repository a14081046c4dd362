"""What a file says of itself: the one type, the one writer and the one reader of our metadata (docs/metadata.md).

A ``.tflite`` file carries its metadata as ``metadata.json`` in a ZIP archive behind the FlatBuffer, as Ultralytics'
own files do; an OpenVINO model's folder has it as ``metadata.json`` beside the model, for readers without YAML. Beside
Ultralytics' keys there is one of ours, ``edgequant``. Whatever bytes come, reading ends in a :class:`Contract` or in
one line of a :class:`~.errors.ContractError`. The standard library is all that this needs.
"""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ._version import __version__
from .errors import ContractError

SCHEMA = 1

#: Tasks whose files hold boxes.
BOX_TASKS = ("detect", "segment", "pose", "obb")

_TASKS = (*BOX_TASKS, "classify", "semantic", "depth")
_OUTPUTS = ("detections", "prototypes", "mask_coefficient", "angle", "kpts", "boxes", "scores", "visibility")
_ARRANGEMENTS = ("levels", "merged", "grid")
_MOST = 1 << 20  # of anything that is counted here; more is damage
_LARGEST_METADATA = 1 << 24  # bytes; 80 names take 2 kB

#: What upstream's readers, which turn the stride into a number, stop with on a file that only ours can decode.
_UNREADABLE = "this file is read with 'import yolo_edgequant' before it: its outputs are not Ultralytics' own"


@dataclass(frozen=True)
class Output:
    """An output of a file.

    Attributes:
        name: ``detections``, ``prototypes``, ``mask_coefficient``, ``angle``, ``kpts``, ``boxes``, ``scores`` or
            ``visibility``.
        stride: of its level in pixels, in raw files; None for what belongs to all levels.
    """

    name: str
    stride: int | None = None

    @property
    def title(self) -> str:
        """The name, with its level, as the file's tensor is called: ``boxes_8``."""
        return self.name if self.stride is None else f"{self.name}_{self.stride}"


@dataclass(frozen=True)
class Raw:
    """How to decode a file that ends at the detection convolutions.

    Attributes:
        cells_first: outputs are (B, cells, C) instead of (B, C, cells).
        reg_max: bins of a side's distribution; 1 if the file holds the distances themselves.
        arrangement: ``levels``, an output for each branch and level; ``merged``, one for each branch with the cells of
            all levels; or ``grid``, a map (B, rows, columns, C) for each branch and level, or (B, C, rows, columns) if
            the cells do not come first.
        keypoint: gain and offset of a keypoint, which lies ``raw * gain + offset`` cells from its anchor; poses only.
    """

    cells_first: bool
    reg_max: int
    keypoint: tuple[float, float] | None = None
    arrangement: str = "levels"


@dataclass(frozen=True)
class TopK:
    """What a reader of an NMS-free file has to choose.

    Attributes:
        count: of detections at most.
        agnostic: one class for each cell.
    """

    count: int
    agnostic: bool


@dataclass(frozen=True)
class Trained:
    """What a model was trained quantization-aware for: an export format, and a granularity of the weights."""

    target: str
    granularity: str


@dataclass(frozen=True)
class Verified:
    """What the self-check found on images held back from calibration.

    Attributes:
        images: that were compared.
        objects: that the float model found in them; None for tasks without boxes.
        agreement: 0 to 1, on these objects; None without any.
        snr_db: signal to noise of each output.
    """

    images: int
    objects: int | None
    agreement: float | None
    snr_db: Mapping[str, float]


@dataclass(frozen=True)
class InFloat:
    """What ``precision="auto"`` chose: layers in float, and the share of the float model's mAP that is kept."""

    layers: int
    retention: float


@dataclass(frozen=True)
class Contract:
    """What a reader has to know of a file.

    Attributes:
        task: Ultralytics' name.
        names: of the classes, by index from 0.
        stride: of the whole model, pixels.
        end2end: the model is NMS-free.
        nms: the file ends in NMS.
        kpt_shape: number and size of the keypoints; None for other tasks than pose.
        head, granularity, ranges, corrections, io: the options that the file was made with; ``none`` where nothing is
            quantized, ``trained`` for ranges from quantization-aware training.
        channels_last: images, and outputs with four dimensions, are NHWC; else NCHW.
        outputs: in the file's order; empty for tasks without boxes.
        normalised: boxes and keypoints are shares of the input's width and height, else pixels; False in raw files.
        unturned: boxes are as if their angle were 0; the reader turns their centres around their cells (``strides``).
        strides: of the levels, pixels; a file has them where a reader needs its cells: raw, or with boxes to turn.
        raw: None for files that hold detections.
        top_k: None if the file, or its NMS, has chosen.
        activation: that was swapped into the model; None if it has its own.
        target: name of the device that the file was made for; None if none was named.
        trained, verified, in_float: None where nothing of the kind was done.
        checksum: CRC-32 of the model's bytes (of an OpenVINO model, of its .xml and then its .bin); None before it is
            written.
        version: of the library that made the file.
    """

    task: str
    names: Mapping[int, str]
    stride: int
    end2end: bool
    nms: bool
    kpt_shape: tuple[int, int] | None
    head: str
    granularity: str
    ranges: str
    corrections: str
    io: str
    channels_last: bool
    outputs: tuple[Output, ...] = ()
    normalised: bool = False
    unturned: bool = False
    strides: tuple[int, ...] = ()
    raw: Raw | None = None
    top_k: TopK | None = None
    activation: str | None = None
    target: str | None = None
    trained: Trained | None = None
    verified: Verified | None = None
    in_float: InFloat | None = None
    checksum: int | None = None
    version: str = field(default=__version__)

    @property
    def has_boxes(self) -> bool:
        """True if the file is of a task with boxes."""
        return self.task in BOX_TASKS

    @property
    def is_final(self) -> bool:
        """True if what a reader gives needs no NMS: the model is NMS-free, or its file ends in NMS."""
        return self.end2end or self.nms

    @property
    def is_upstream(self) -> bool:
        """True if Ultralytics reads the file rightly without this library."""
        names = [output.name for output in self.outputs]
        arranged = names in (["detections"], ["detections", "prototypes"], ["prototypes", "detections"])
        ours = self.raw is not None or self.top_k is not None or self.unturned or not arranged
        return self.io != "uint8" and not (self.has_boxes and ours)

    def to_metadata(self, upstream: Mapping[str, Any]) -> dict[str, Any]:
        """The whole metadata of the file: upstream's, and ours under ``edgequant``."""
        ours: dict[str, Any] = {
            "schema": SCHEMA,
            "version": self.version,
            "head": str(self.head),
            "granularity": str(self.granularity),
            "ranges": str(self.ranges),
            "corrections": str(self.corrections),
            "io": str(self.io),
            "layout": "NHWC" if self.channels_last else "NCHW",
            "stride": self.stride,
        }
        outputs = [{"name": o.name} if o.stride is None else {"name": o.name, "stride": o.stride} for o in self.outputs]
        if self.raw is not None:
            ours["raw"] = {
                "outputs": outputs,
                "order": "cells, channels" if self.raw.cells_first else "channels, cells",
                "strides": list(self.strides),
                "reg_max": self.raw.reg_max,
                "arrangement": str(self.raw.arrangement),
            }
            if self.raw.keypoint is not None:
                ours["raw"] |= {"kpt_shape": list(self.kpt_shape or ()), "keypoint": list(self.raw.keypoint)}
        elif self.has_boxes:
            ours |= {"boxes": "normalised" if self.normalised else "pixels", "outputs": outputs}
        if self.unturned:
            ours |= {"turned": False, "strides": list(self.strides)}
        if self.top_k is not None:
            ours["top_k"] = {"count": self.top_k.count, "agnostic": self.top_k.agnostic}
        if self.activation is not None:
            ours["activation"] = self.activation
        if self.target is not None:
            ours["target"] = str(self.target)
        if self.trained is not None:
            ours["trained"] = {"target": self.trained.target, "granularity": str(self.trained.granularity)}
        if self.verified is not None:
            ours["verified"] = {
                "images": self.verified.images,
                "objects": self.verified.objects,
                "agreement": self.verified.agreement,
                "snr_db": dict(self.verified.snr_db),
            }
        if self.in_float is not None:
            ours["precision"] = {"in_float": self.in_float.layers, "retention": self.in_float.retention}
        if self.checksum is not None:
            ours["checksum"] = self.checksum
        stride = upstream.get("stride", self.stride) if self.is_upstream else _UNREADABLE
        return {**upstream, "stride": stride, "end2end": self.end2end, "edgequant": ours}

    @classmethod
    def of(cls, metadata: Any) -> Contract:
        """Read the metadata of a file, whoever wrote it.

        Raises:
            ContractError: it is not of ours, damaged, or of a later version.
        """
        top = _Keys(metadata, "metadata")
        if "edgequant" not in top.values:
            raise ContractError("it does not say how to decode it; export it again with 'import yolo_edgequant'")
        ours = _Keys(top.values["edgequant"], "edgequant")
        if (schema := ours.whole("schema", 1, _MOST)) != SCHEMA:
            raise ContractError(f"it has metadata of schema {schema}, this version reads {SCHEMA}")
        task = top.choice("task", _TASKS)
        raw, outputs, strides = _raw(ours) if "raw" in ours.values else (None, (), ())
        if raw is None and task in BOX_TASKS:
            outputs = _outputs(ours, {"detections"}, with_levels=False)
            strides = ours.wholes("strides", 1, 16, _MOST) if "turned" in ours.values else ()
        arguments = _Keys(top.values.get("args", {}), "args")
        kpt_shape = top.wholes("kpt_shape", 2, 2, _MOST) if task == "pose" else None
        contract = cls(
            task=task,
            names=_names(top),
            stride=ours.whole("stride", 1, _MOST),
            end2end=top.flag("end2end"),
            nms=arguments.optional("nms", arguments.flag) or False,
            kpt_shape=None if kpt_shape is None else (kpt_shape[0], kpt_shape[1]),
            head=ours.choice("head", ("int8", "float", "raw")),
            granularity=ours.text("granularity"),
            ranges=ours.text("ranges"),
            corrections=ours.text("corrections"),
            io=ours.choice("io", ("int8", "uint8", "float")),
            channels_last=ours.choice("layout", ("NHWC", "NCHW")) == "NHWC",
            outputs=outputs,
            normalised=raw is None and task in BOX_TASKS and ours.choice("boxes", ("normalised", "pixels"))[0] == "n",
            unturned="turned" in ours.values,
            strides=strides,
            raw=raw,
            top_k=_top_k(ours),
            activation=ours.text("activation") if "activation" in ours.values else None,
            target=ours.text("target") if "target" in ours.values else None,
            trained=_trained(ours),
            verified=_verified(ours),
            in_float=_in_float(ours),
            checksum=ours.whole("checksum", 0, 1 << 32) if "checksum" in ours.values else None,
            version=ours.text("version"),
        )
        _check_together(contract)
        return contract


def read(path: Path) -> Contract:
    """The contract of a ``.tflite`` file or an OpenVINO model's folder whose bytes are those that were written.

    Raises:
        ContractError: there is none, or the file is damaged.
    """
    try:
        metadata, checksum = (_folder if path.is_dir() else _archive)(path)
        contract = Contract.of(metadata)
        if contract.checksum is None:
            raise ContractError("key 'edgequant.checksum' is missing")
        if contract.checksum != checksum:
            raise ContractError("its bytes are not those that were written; copy or export it again")
    except ContractError as error:
        raise ContractError(f"'{path}' cannot be read: {error}") from error
    return contract


def metadata_of(path: Path) -> dict[str, Any]:
    """All metadata of a ``.tflite`` file or an OpenVINO model's folder, whoever wrote it; empty if none can be read."""
    try:
        metadata, _ = (_folder if path.is_dir() else _archive)(path)
    except ContractError:
        return {}
    return metadata if isinstance(metadata, dict) else {}


def append(path: Path, contract: Contract, upstream: Mapping[str, Any]) -> None:
    """Append the metadata to a ``.tflite`` file that has none yet.

    Args:
        path: of the file, which is changed.
        contract: without a checksum.
        upstream: Ultralytics' own metadata.
    """
    contract = replace(contract, checksum=zlib.crc32(path.read_bytes()))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.json", json.dumps(contract.to_metadata(upstream)))


def beside(folder: Path, contract: Contract, upstream: Mapping[str, Any]) -> dict[str, Any]:
    """Write ``metadata.json`` into an OpenVINO model's folder, and return the metadata in it."""
    metadata = replace(contract, checksum=_folder_checksum(folder)).to_metadata(upstream)
    (folder / "metadata.json").write_text(json.dumps(metadata))
    return metadata


def _archive(path: Path) -> tuple[Any, int]:
    """Metadata of a ``.tflite`` file, and the checksum of what lies in front of it."""
    try:
        if not zipfile.is_zipfile(path):
            raise ContractError("it has no metadata: not from 'import yolo_edgequant', or cut off")
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            entry = entries.get("metadata.json")
            if entry is None or entry.file_size > _LARGEST_METADATA:
                raise ContractError("its archive has no metadata.json, or one of more than 16 MB")
            if entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                raise ContractError(f"its metadata is damaged (compressed by method {entry.compress_type})")
            text = archive.read(entry)
        content = path.read_bytes()[: min(e.header_offset for e in entries.values())]
    except ContractError:
        raise
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise ContractError(f"its metadata is damaged ({_line(error)})") from error
    return _json(text), zlib.crc32(content)


def _folder(path: Path) -> tuple[Any, int]:
    """Metadata of an OpenVINO model's folder, and the checksum of the model."""
    file = path / "metadata.json"
    try:
        if not file.is_file() or file.stat().st_size > _LARGEST_METADATA:
            raise ContractError("it has no metadata.json, or one of more than 16 MB; export it again")
        return _json(file.read_bytes()), _folder_checksum(path)
    except OSError as error:
        raise ContractError(f"its files cannot be read ({_line(error)})") from error


def _folder_checksum(path: Path) -> int:
    checksum = 0
    for suffix in (".xml", ".bin"):
        files = sorted(path.glob(f"*{suffix}"))
        if len(files) != 1:
            raise ContractError(f"it holds {len(files)} {suffix} files; an OpenVINO model's folder holds one")
        checksum = zlib.crc32(files[0].read_bytes(), checksum)
    return checksum


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ContractError(f"its metadata is no JSON ({_line(error)})") from error


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


class _Keys:
    """A mapping from a stranger: every value is looked at before it is believed."""

    def __init__(self, values: Any, name: str) -> None:
        if not isinstance(values, Mapping):
            raise ContractError(f"'{name}' is {_shown(values)}, not a mapping")
        self.values, self.name = values, name

    def _taken(self, key: str, wanted: str, fits: Callable[[Any], bool]) -> Any:
        name = _shown(f"{self.name}.{key}")
        if key not in self.values:
            raise ContractError(f"key {name} is missing")
        if not fits(self.values[key]):
            raise ContractError(f"key {name} is {_shown(self.values[key])}, not {wanted}")
        return self.values[key]

    def whole(self, key: str, least: int, most: int) -> int:
        return self._taken(key, f"a whole number from {least} to {most}", lambda v: _is_whole(v, least, most))

    def wholes(self, key: str, least: int, most: int, largest: int) -> tuple[int, ...]:
        def fits(values: Any) -> bool:
            return (
                isinstance(values, (list, tuple))
                and least <= len(values) <= most
                and all(_is_whole(value, 1, largest) for value in values)
            )

        return tuple(self._taken(key, f"a list of {least} to {most} whole numbers from 1 to {largest}", fits))

    def number(self, key: str) -> float:
        return float(self._taken(key, "a finite number", _is_number))

    def flag(self, key: str) -> bool:
        return self._taken(key, "true or false", lambda value: isinstance(value, bool))

    def text(self, key: str) -> str:
        return self._taken(key, "a short text", lambda v: isinstance(v, str) and 0 < len(v) <= 100)

    def choice(self, key: str, allowed: tuple[str, ...]) -> str:
        return self._taken(key, f"one of {', '.join(allowed)}", lambda v: isinstance(v, str) and v in allowed)

    def below(self, key: str) -> _Keys:
        return _Keys(self._taken(key, "a mapping", lambda value: isinstance(value, Mapping)), f"{self.name}.{key}")

    def optional(self, key: str, read: Callable[[str], Any]) -> Any:
        return read(key) if self.values.get(key) is not None else None


def _is_whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_number(value: Any) -> bool:
    """True for what a float can hold; the bound comes first, since huge integers cannot be turned into one."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9 and math.isfinite(value)


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, (str, int, float, bool, type(None))) else type(value).__name__
    return text if len(text) <= 60 else f"{text[:57]}..."


def _names(top: _Keys) -> dict[int, str]:
    names = top.below("names").values
    try:
        numbered = {int(index): name for index, name in names.items()}
    except (TypeError, ValueError, OverflowError):
        numbered = {}
    if sorted(numbered) != list(range(len(names))) or not names or not all(isinstance(n, str) for n in names.values()):
        raise ContractError("key 'metadata.names' is not a mapping from 0, 1, 2, ... to the classes' names")
    return dict(sorted(numbered.items()))


def _raw(ours: _Keys) -> tuple[Raw, tuple[Output, ...], tuple[int, ...]]:
    facts = ours.below("raw")
    strides = facts.wholes("strides", 1, 16, _MOST)
    keypoint = None
    if "keypoint" in facts.values:
        pair = facts.values["keypoint"]
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not all(map(_is_number, pair)):
            raise ContractError("key 'edgequant.raw.keypoint' is not a gain and an offset")
        keypoint = (float(pair[0]), float(pair[1]))
    raw = Raw(
        cells_first=facts.choice("order", ("cells, channels", "channels, cells")) == "cells, channels",
        reg_max=facts.whole("reg_max", 1, 1024),
        keypoint=keypoint,
        # files of before there was a choice do not say
        arrangement=facts.choice("arrangement", _ARRANGEMENTS) if "arrangement" in facts.values else "levels",
    )
    if len(set(strides)) < len(strides):
        raise ContractError(f"key 'edgequant.raw.strides' names a level twice: {list(strides)}")
    merged = raw.arrangement == "merged"
    outputs = _outputs(facts, {"boxes", "scores"}, with_levels=not merged)
    for name in {output.name for output in outputs} - {"prototypes"}:
        if not merged and [o.stride for o in outputs if o.name == name] != list(strides):
            raise ContractError(f"the outputs '{name}' are not one for each of the strides {list(strides)}")
    return raw, outputs, strides


def _outputs(keys: _Keys, needed: set[str], with_levels: bool) -> tuple[Output, ...]:
    entries = keys._taken("outputs", "a list of outputs", lambda v: isinstance(v, (list, tuple)) and len(v) <= 100)
    outputs = []
    for number, entry in enumerate(entries):
        values = _Keys(entry, f"{keys.name}.outputs[{number}]")
        stride = values.optional("stride", lambda key, values=values: values.whole(key, 1, _MOST))
        output = Output(values.choice("name", _OUTPUTS), stride)
        if (stride is not None) != (with_levels and output.name != "prototypes"):
            raise ContractError(f"output '{output.title}' has a stride where it needs none, or lacks it")
        outputs.append(output)
    names = [output.title for output in outputs]
    if len(set(names)) != len(names) or not needed <= {output.name for output in outputs}:
        raise ContractError(f"the outputs {', '.join(names) or 'none'} lack {' and '.join(sorted(needed))}, or repeat")
    return tuple(outputs)


def _top_k(ours: _Keys) -> TopK | None:
    if "top_k" not in ours.values:
        return None
    facts = ours.below("top_k")
    return TopK(facts.whole("count", 1, _MOST), facts.flag("agnostic"))


def _trained(ours: _Keys) -> Trained | None:
    if "trained" not in ours.values:
        return None
    facts = ours.below("trained")
    return Trained(facts.text("target"), facts.text("granularity"))


def _verified(ours: _Keys) -> Verified | None:
    if "verified" not in ours.values:
        return None
    facts = ours.below("verified")
    noise = facts.below("snr_db")
    return Verified(
        images=facts.whole("images", 0, _MOST),
        objects=facts.optional("objects", lambda key: facts.whole(key, 0, _MOST)),
        agreement=facts.optional("agreement", facts.number),
        snr_db={str(name): noise.number(name) for name in noise.values},
    )


def _in_float(ours: _Keys) -> InFloat | None:
    if "precision" not in ours.values:
        return None
    facts = ours.below("precision")
    return InFloat(facts.whole("in_float", 0, _MOST), facts.number("retention"))


def _check_together(contract: Contract) -> None:
    """Refuse what is right key by key and impossible together.

    Raises:
        ContractError: see its text.
    """
    names = {output.name for output in contract.outputs}
    needed = {"segment": {"mask_coefficient"}, "pose": {"kpts"}, "obb": {"angle"}}.get(contract.task, set())
    if contract.raw is not None and not needed <= names:
        raise ContractError(f"a raw file of a {contract.task} model has no output '{min(needed - names)}'")
    if (contract.raw is not None) != (contract.head == "raw") and contract.has_boxes:
        raise ContractError(f"key 'edgequant.head' is {contract.head!r}, and key 'edgequant.raw' says otherwise")
    if contract.raw is not None and contract.is_final and contract.top_k is None:
        raise ContractError("a raw file holds no final detections, and its keys 'end2end' or 'nms' say that it does")
    if contract.top_k is not None and not contract.end2end:
        raise ContractError("key 'edgequant.top_k' is for NMS-free files, and key 'metadata.end2end' is False")
    if contract.task == "segment" and "prototypes" not in names:
        raise ContractError("a file of a segment model has no output 'prototypes'")
    if contract.task == "pose":
        visible = contract.raw is not None and "visibility" in names
        sizes = {3} if visible else {2} if contract.raw is not None else {2, 3}
        if contract.kpt_shape is None or contract.kpt_shape[1] not in sizes:
            raise ContractError("key 'metadata.kpt_shape' does not fit the outputs")
        if contract.raw is not None and contract.raw.keypoint is None:
            raise ContractError("key 'edgequant.raw.keypoint' is missing")
    if contract.unturned and contract.task != "obb":
        raise ContractError(f"key 'edgequant.turned' is not for a {contract.task} model")
