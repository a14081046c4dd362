"""What each device can run, and what suits it: read from ``profiles/NAME.toml``, every entry with its source and date.

Where nothing is known an entry is absent. Strict: an unknown key, a wrong type or an unknown source is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import OptionError
from ..options import CHOICES, Choice, ExportOptions, Target
from ..strict_table import StrictTable, tomllib
from .formats import PROFILES, Format, Profile

_FOLDER = Path(__file__).parent / "profiles"
#: The options that a profile chooses, the format aside.
_CHOSEN = ("head", "outputs", "granularity", "io")
_TASKS = ("detect", "segment", "pose", "obb", "classify", "semantic", "depth")


class Effect(Choice):
    """What comes of something on a device."""

    WORKS = "works"
    CPU = "cpu"  # runs, but not on the accelerator
    SLOW = "slow"
    CORRUPTS = "corrupts"  # the results are wrong, without an error
    UNKNOWN = "unknown"  # against what the device's documents say, and not tried
    FAILS = "fails"  # the compiler, the delegate or the program stops


@dataclass(frozen=True)
class Source:
    """Where something was read, and the date of that text; "undated" where it has none."""

    where: str
    date: str


@dataclass(frozen=True)
class Default:
    """The value of an option that suits a device, and why."""

    option: str
    value: Choice
    why: str
    source: Source


@dataclass(frozen=True)
class Caution:
    """A value of an option that a device does not take well."""

    option: str
    value: Choice
    effect: Effect
    why: str
    source: Source


@dataclass(frozen=True)
class Permutation:
    """A transpose that is allowed: its axes, and those that must have size 1. Leading axes that stay are left out."""

    axes: tuple[int, ...]
    ones: tuple[int, ...]


@dataclass(frozen=True)
class Constraints:
    """What an operator has to fulfil. None, the default of all, is no condition.

    Attributes:
        static: no dimension is left open; else the whole file is refused.
        types: of the tensors that are computed.
        max_rank: of tensors that are computed.
        wide_dims: only so many of the innermost dimensions are larger than 1.
        only_dims: only so many dimensions, wherever they are, are larger than 1.
        max_dim: largest dimension.
        max_elements: of the first input.
        batch_one: inputs with four dimensions have a first one of 1.
        per_axis: more than one scale a tensor is possible.
        constant_inputs: positions of inputs that are constants.
        fused: a fused activation is possible.
        min_version, max_version: of the operator.
        max_stride: of rows and columns.
        factors: whole numbers by which rows and columns may be resized.
        half_pixel_factors: the same with ``half_pixel_centers``.
        permutations: of a transpose.
    """

    static: bool | None = None
    types: tuple[str, ...] | None = None
    max_rank: int | None = None
    wide_dims: int | None = None
    only_dims: int | None = None
    max_dim: int | None = None
    max_elements: int | None = None
    batch_one: bool | None = None
    per_axis: bool | None = None
    constant_inputs: tuple[int, ...] | None = None
    fused: bool | None = None
    min_version: int | None = None
    max_version: int | None = None
    max_stride: int | None = None
    factors: tuple[int, ...] | None = None
    half_pixel_factors: tuple[int, ...] | None = None
    permutations: tuple[Permutation, ...] | None = None

    def over(self, common: Constraints) -> Constraints:
        """These, and those of `common` where they say nothing."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        return Constraints(**{name: getattr(common, name) if value is None else value for name, value in own.items()})


@dataclass(frozen=True)
class OperatorRule:
    """Whether a kind of operator runs on the accelerator.

    Attributes:
        kind: TFLite's name, as ``CONV_2D``.
        accelerator: it can; else it is known not to.
        constraints: of this kind; what they leave open is as in :attr:`OperatorRules.common`.
        note: what no constraint says; empty if nothing.
        source: of it.
    """

    kind: str
    accelerator: bool
    constraints: Constraints
    note: str
    source: Source


@dataclass(frozen=True)
class OperatorRules:
    """A device's list of operators; one that is not on it stays on the CPU.

    Attributes:
        common: constraints of all.
        note: what they do not say.
        source: of them.
        by_kind: the operators on the list.
    """

    common: Constraints
    note: str
    source: Source
    by_kind: Mapping[str, OperatorRule]


@dataclass(frozen=True)
class Activation:
    """What comes of an activation of the model, by our names (``relu6``, ``relu``, ``leaky_relu``, …)."""

    name: str
    effect: Effect
    note: str
    source: Source


@dataclass(frozen=True)
class Memory:
    """Of an accelerator: what it is for, and bytes."""

    what: str
    bytes: int
    note: str
    source: Source


@dataclass(frozen=True)
class Size:
    """The largest side of an input, in pixels, that was reported to run wholly on the accelerator."""

    largest: int
    note: str
    source: Source


@dataclass(frozen=True)
class KnownModel:
    """A model that was tried there.

    Attributes:
        family: as Ultralytics names it: ``yolo11``.
        scales: of it; empty for all.
        effect: that it had.
        note: what was seen.
        source: of it.
    """

    family: str
    scales: tuple[str, ...]
    effect: Effect
    note: str
    source: Source


@dataclass(frozen=True)
class Note:
    """Anything else that is known: what it is about, and what."""

    about: str
    text: str
    source: Source


@dataclass(frozen=True)
class Device:
    """A device, or a program on it, as a target.

    Attributes:
        name: of the option ``target``.
        title: for people.
        accelerator: its name; None if files run on the CPU.
        formats: of files for it, the default first.
        layout: of the input, ``NHWC`` or ``NCHW``, in the default format.
        tasks: that it can run; empty where no limit is known.
        nncf: NNCF's name of the device; None for ``.tflite`` files.
        operators: None where no list is known.
        hardware_of: the device whose hardware it is, if that has a profile of its own: its operators, activations,
            memory and models hold here, too.
        defaults, cautions, activations, memory, models, notes: entries.
        size: None where nothing is known.
    """

    name: Target
    title: str
    accelerator: str | None
    formats: tuple[Format, ...]
    layout: str
    tasks: tuple[str, ...]
    nncf: str | None
    operators: OperatorRules | None
    hardware_of: str | None
    defaults: tuple[Default, ...]
    cautions: tuple[Caution, ...]
    activations: tuple[Activation, ...]
    memory: tuple[Memory, ...]
    size: Size | None
    models: tuple[KnownModel, ...]
    notes: tuple[Note, ...]

    def default(self, option: str) -> Choice | None:
        """The value of an option that suits the device; None where the format decides."""
        return next((entry.value for entry in self.defaults if entry.option == option), None)

    def fill(self, options: ExportOptions, profile: Profile) -> ExportOptions:
        """Options, with what was left open as it suits the device, where the format can hold that."""
        values = options.given()
        for name in ("head", "granularity", "io"):
            value = self.default(name)
            if name == "io" and values.get("head", self.default("head")) != self.default("head"):
                continue  # the type of the input follows the head
            if name not in values and value is not None and value in getattr(profile, name):
                values[name] = value
        arrangement = self.default("outputs")
        head = values.get("head", profile.head[0])
        if "outputs" not in values and arrangement is not None and arrangement in profile.outputs(head):
            values["outputs"] = arrangement
        return ExportOptions(**values)

    def format(self, name: str) -> Format:
        """The format of that name.

        Raises:
            OptionError: files of that format are not for this device.
        """
        if name not in self.formats:
            raise OptionError(
                f"format={name!r} is not for target={self.name!r}, which takes {' or '.join(map(repr, self.formats))}; "
                "leave it out"
            )
        return Format(name)


@cache
def device(name: str) -> Device:
    """The profile of that name.

    Raises:
        OptionError: there is none.
        ValueError: its file is not as it should be.
    """
    if name not in list(Target):
        raise OptionError(f"target={name!r} is not one of {', '.join(map(repr, Target))}")
    path = _FOLDER / f"{name}.toml"
    return read(Target(name), path.read_text(encoding="utf-8"))


def devices() -> list[Device]:
    """All profiles."""
    return [device(name) for name in Target]


def read(name: Target, text: str) -> Device:
    """A profile, from the text of its file.

    Raises:
        ValueError: an unknown or missing key, a wrong type or value, or a source that is not listed.
    """
    top = _Table(f"{name}.toml", tomllib.loads(text))
    listed = top.below("sources")
    sources = {key: _source(listed.below(key)) for key in list(listed.values)}
    listed.end()
    top.sources = sources
    of = top.optional("hardware_of", top.text)
    same = None if of is None else device(of)
    own = top.optional("operators", top.below)
    activations, memory = top.entries("activations", _activation), top.entries("memory", _memory)
    size, models = top.optional("size", lambda key: _size(top.below(key))), top.entries("models", _model)
    if same is not None:
        named = {entry.name for entry in activations}
        activations += tuple(entry for entry in same.activations if entry.name not in named)
        memory, size, models = memory + same.memory, size or same.size, models + same.models
    profile = Device(
        name=name,
        title=top.text("title"),
        accelerator=top.optional("accelerator", top.text),
        formats=tuple(Format(top.among(f, tuple(PROFILES), "formats")) for f in top.texts("formats")),
        layout=top.choice("layout", ("NHWC", "NCHW")),
        tasks=tuple(top.among(task, _TASKS, "tasks") for task in top.optional("tasks", top.texts) or ()),
        nncf=top.optional("nncf", top.text),
        operators=_rules(own) if own is not None else None if same is None else same.operators,
        hardware_of=of,
        defaults=top.entries("defaults", _default),
        cautions=top.entries("cautions", _caution),
        activations=activations,
        memory=memory,
        size=size,
        models=models,
        notes=top.entries("notes", lambda t: Note(t.text("about"), t.text("text"), t.source())),
    )
    top.end()
    return profile


class _Table(StrictTable):
    """A table of a profile, which may name a source."""

    def __init__(self, where: str, values: Any, sources: Mapping[str, Source] | None = None) -> None:
        super().__init__(where, values)
        self.sources = sources or {}

    def inner(self, where: str, values: Any) -> _Table:
        return _Table(where, values, self.sources)

    def note(self) -> str:
        return self.optional("note", self.text) or ""

    def source(self) -> Source:
        name = self.text("source")
        if name not in self.sources:
            raise ValueError(f"{self.where}: source {name!r} is not among {', '.join(self.sources) or 'any'}")
        return self.sources[name]


def _source(table: _Table) -> Source:
    source = Source(table.text("where"), table.text("date"))
    table.end()
    return source


def _option(table: _Table) -> tuple[str, Choice]:
    option = table.choice("option", _CHOSEN)
    return option, CHOICES[option](table.choice("value", tuple(map(str, CHOICES[option]))))


def _default(table: _Table) -> Default:
    return Default(*_option(table), table.text("why"), table.source())


def _caution(table: _Table) -> Caution:
    return Caution(*_option(table), _effect(table), table.text("why"), table.source())


def _effect(table: _Table) -> Effect:
    return Effect(table.choice("effect", tuple(map(str, Effect))))


def _activation(table: _Table) -> Activation:
    return Activation(table.text("name"), _effect(table), table.note(), table.source())


def _memory(table: _Table) -> Memory:
    return Memory(table.text("what"), table.whole("bytes"), table.note(), table.source())


def _size(table: _Table) -> Size:
    size = Size(table.whole("largest"), table.text("note"), table.source())
    table.end()
    return size


def _model(table: _Table) -> KnownModel:
    scales = table.optional("scales", table.texts) or ()
    return KnownModel(table.text("family"), scales, _effect(table), table.text("note"), table.source())


def _rules(table: _Table) -> OperatorRules:
    entries = table.entries("entries", _entry)
    by_kind: dict[str, OperatorRule] = {}
    for rule in (rule for group in entries for rule in group):
        if rule.kind in by_kind:
            raise ValueError(f"{table.where}: {rule.kind} is there twice")
        by_kind[rule.kind] = rule
    rules = OperatorRules(_constraints(table), table.note(), table.source(), by_kind)
    table.end()
    return rules


def _entry(table: _Table) -> list[OperatorRule]:
    kinds, runs = table.texts("kinds"), table.flag("accelerator")
    constraints, note, source = _constraints(table), table.note(), table.source()
    return [OperatorRule(kind, runs, constraints, note, source) for kind in kinds]


def _constraints(table: _Table) -> Constraints:
    return Constraints(
        **{name: table.optional(name, table.flag) for name in ("static", "batch_one", "per_axis", "fused")},
        **{
            name: table.optional(name, table.whole)
            for name in (
                *("max_rank", "wide_dims", "only_dims", "max_dim", "max_elements"),
                *("min_version", "max_version", "max_stride"),
            )
        },
        **{name: table.optional(name, table.wholes) for name in ("constant_inputs", "factors", "half_pixel_factors")},
        types=table.optional("types", table.texts),
        permutations=table.optional(
            "permutations", lambda key: table.entries(key, lambda t: Permutation(t.wholes("axes"), t.wholes("ones")))
        ),
    )
