"""What of a model and an export will not go well on a device, told from the model and the device's profile."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import UnsupportedModelError
from ..log import LOGGER
from ..options import Choice, ExportOptions, Head
from ..targets.devices import Device, Effect, KnownModel, OperatorRule, Source
from ..targets.formats import PROFILES, Format, Request, resolve
from ..targets.placement import Operator, Place, place
from ..training.fake_quantization import without_fake_quantization
from ..upstream import blocks, heads
from . import preflight

_FAMILY = re.compile(r"(yolov?\d+)")
#: Our names of activations, by class; other classes by their own names.
_ACTIVATIONS = {
    nn.SiLU: "silu",
    nn.ReLU6: "relu6",
    nn.ReLU: "relu",
    nn.LeakyReLU: "leaky_relu",
    nn.Hardswish: "hardswish",
    nn.Mish: "mish",
    nn.GELU: "gelu",
    nn.ELU: "elu",
}


class Severity(Choice):
    """How bad a finding is."""

    REFUSE = "refuse"  # the file would be of no use there
    WARN = "warn"
    NOTE = "note"


_OF_EFFECT = {
    Effect.WORKS: Severity.NOTE,
    Effect.CPU: Severity.WARN,
    Effect.SLOW: Severity.WARN,
    Effect.UNKNOWN: Severity.WARN,
    Effect.CORRUPTS: Severity.REFUSE,
    Effect.FAILS: Severity.REFUSE,
}


_WORDS = {
    Effect.CPU: "leaves work to the CPU",
    Effect.SLOW: "is slow",
    Effect.UNKNOWN: "may not work",
    Effect.CORRUPTS: "goes wrong",
    Effect.FAILS: "does not work",
}


@dataclass(frozen=True)
class Finding:
    """One thing to know before an export.

    Attributes:
        severity: of it.
        about: ``activation``, ``attention``, ``dynamic``, ``head``, ``memory``, ``model``, ``nms``, ``option``,
            ``size`` or ``task``.
        text: what is the matter, the value seen, and what to do.
        source: of what the profile says; None for what this library itself cannot do.
    """

    severity: Severity
    about: str
    text: str
    source: Source | None

    def __str__(self) -> str:
        return self.text if self.source is None else f"{self.text} [{self.source.where}, {self.source.date}]"


def examine(
    model: nn.Module,
    device: Device,
    size: tuple[int, int],
    given: ExportOptions,
    name: str | None = None,
    dynamic: bool = False,
    nms_free: bool = False,
) -> list[Finding]:
    """What will not go well, the worst first.

    Args:
        model: Ultralytics' model in PyTorch.
        device: the profile of the device.
        size: (height, width) of the input in pixels.
        given: options that the user set.
        name: of the format; the device's own if left out.
        dynamic: shapes are left open.
        nms_free: the NMS-free branch of the model is kept.

    Raises:
        OptionError: the options are impossible together, or the format is not for the device.
        UnsupportedModelError: this is no YOLO model, or its head is unknown.
    """
    profile = PROFILES[device.format(name or device.formats[0])]
    request = resolve(profile, device.fill(given, profile))
    model = without_fake_quantization(model)
    head = heads.detection_head(model)
    findings = [
        *_task(model, device),
        *_model(model, device),
        *_activations(model, device),
        *_integers(model, request),
        *_dynamic(request, dynamic),
        *_options(given, device),
        *_size(size, device),
        *_memory(model, device),
    ]
    if not any(finding.about == "model" and finding.severity != Severity.NOTE for finding in findings):
        findings += _attention(model, device)
    if nms_free and getattr(head, "one2one_cv2", None) is not None and request.head == Head.FLOAT:
        findings += _nms_free(device)
    return sorted(findings, key=lambda finding: list(Severity).index(finding.severity))


def enforce(findings: Iterable[Finding], device: Device) -> None:
    """Log warnings and notes, and stop at what makes a file useless.

    Raises:
        UnsupportedModelError: there is something of that kind.
    """
    for finding in findings:
        if finding.severity == Severity.REFUSE:
            raise UnsupportedModelError(f"target={device.name!r}: {finding}")
        (LOGGER.warning if finding.severity == Severity.WARN else LOGGER.info)(f"target={device.name!r}: {finding}")


def family(model: nn.Module) -> tuple[str, str]:
    """A model's family and scale as its YAML says, as ``("yolo11", "s")``; empty where it does not."""
    yaml: dict[str, Any] = getattr(model, "yaml", None) or {}
    match = _FAMILY.match(Path(str(yaml.get("yaml_file", ""))).stem)
    return (match.group(1) if match else "", str(yaml.get("scale") or ""))


def _task(model: nn.Module, device: Device) -> list[Finding]:
    task = getattr(model, "task", None)
    if not device.tasks or task in device.tasks:
        return []
    source = next(entry.source for entry in (*device.defaults, *device.notes))
    text = f"task {task!r} cannot be run there, only {' and '.join(map(repr, device.tasks))}; take another target"
    return [Finding(Severity.REFUSE, "task", text, source)]


def _model(model: nn.Module, device: Device) -> list[Finding]:
    """What was published of the same model there."""
    name, scale = family(model)
    entries = [one for one in device.models if one.family == name and (not one.scales or scale in one.scales)]
    return [
        Finding(_OF_EFFECT[entry.effect], "model", f"{name}{scale} {_said(entry, device)}", entry.source)
        for entry in entries
    ]


def _said(entry: KnownModel, device: Device) -> str:
    if entry.effect == Effect.WORKS:
        return f"fits there by what is known: {entry.note}"
    said = f"{_WORDS[entry.effect]} there: {entry.note}"
    return f"{said}; {_instead(device, entry.family, entry.effect in {Effect.CORRUPTS, Effect.FAILS})}"


def _instead(device: Device, name: str, refused: bool = False) -> str:
    """What to take in place of a model."""
    better = [entry.family for entry in device.models if entry.effect == Effect.WORKS and entry.family != name]
    advice = f"take {better[0].replace('yolo', 'YOLO')} instead" if better else "compare it with the CPU there"
    return f"{advice}, or export without target= to try it all the same" if refused else advice


def _activations(model: nn.Module, device: Device) -> list[Finding]:
    hidden = {id(m) for owner in model.modules() if blocks.only_trains(owner) for m in owner.modules()}
    counts = Counter(_ACTIVATIONS[type(m)] for m in model.modules() if type(m) in _ACTIVATIONS and id(m) not in hidden)
    known = {entry.name: entry for entry in device.activations}
    swap = "swap them with yolo_edgequant.finetune(model, activation='relu6', …)"
    findings = []
    for name, count in counts.items():
        entry = known.get(name)
        if entry is None and known:
            text = f"nothing is known there of the activation {name} ({count} times); if it fails, {swap}"
            source = device.operators.source if device.operators else device.activations[0].source
            findings.append(Finding(Severity.WARN, "activation", text, source))
        elif entry is not None and entry.effect != Effect.WORKS:
            words = {Effect.CPU: "stays on the CPU", Effect.SLOW: "is slow", Effect.CORRUPTS: "goes wrong"}
            said = (
                f"the activation {name} ({count} times) {words.get(entry.effect, 'fails')} there: {entry.note}; {swap}"
            )
            findings.append(Finding(_OF_EFFECT[entry.effect], "activation", said, entry.source))
    return findings


def _integers(model: nn.Module, request: Request) -> list[Finding]:
    """What the quantizer would leave in float."""
    try:
        preflight.check_integers(request, model)
    except UnsupportedModelError as error:
        return [Finding(Severity.REFUSE, "activation", str(error), None)]
    return []


def _dynamic(request: Request, dynamic: bool) -> list[Finding]:
    if not dynamic or request.profile.format == Format.OPENVINO:
        return []
    text = f"dynamic=True is not possible: format={request.profile.format!r} has fixed shapes; leave it out"
    return [Finding(Severity.REFUSE, "dynamic", text, None)]


def _options(given: ExportOptions, device: Device) -> list[Finding]:
    """Values that the user chose and the profile advises against."""
    values = given.given()
    return [
        Finding(
            Severity.WARN, "option", f"{one.option}={one.value!r} {_WORDS[one.effect]} there: {one.why}", one.source
        )
        for one in device.cautions
        if values.get(one.option) == one.value
    ]


def _size(size: tuple[int, int], device: Device) -> list[Finding]:
    if device.size is None or max(size) <= device.size.largest:
        return []
    text = (
        f"an input of {size[0]} x {size[1]} is over the {device.size.largest} pixels that are known to run wholly on "
        f"the {device.accelerator}: {device.size.note}; take imgsz={device.size.largest}"
    )
    return [Finding(Severity.WARN, "size", text, device.size.source)]


def _memory(model: nn.Module, device: Device) -> list[Finding]:
    """Weights of one byte each, beside the memory for parameters."""
    needed = sum(weights.numel() for weights in model.parameters())
    return [
        Finding(
            Severity.WARN,
            "memory",
            f"{needed / 1e6:.1f} MB of weights are over the {entry.bytes / 1e6:.1f} MB for {entry.what}: {entry.note}; "
            "take a smaller model",
            entry.source,
        )
        for entry in device.memory
        if entry.what == "parameters" and needed > entry.bytes
    ]


def _attention(model: nn.Module, device: Device) -> list[Finding]:
    if not blocks.has_attention(model) or (rules := device.operators) is None:
        return []
    (placement,) = place([Operator("BATCH_MATMUL", 1, (), ())], device)
    if placement.place == Place.ACCELERATOR:
        return []
    name, _ = family(model)
    advice = _instead(device, name)
    text = f"the attention of {name or 'this model'} needs BATCH_MATMUL, which stays on the CPU there; {advice}"
    rule: OperatorRule | None = rules.by_kind.get("BATCH_MATMUL")
    return [Finding(Severity.WARN, "attention", text, rules.source if rule is None else rule.source)]


def _nms_free(device: Device) -> list[Finding]:
    rule = None if device.operators is None else device.operators.by_kind.get("TOPK_V2")
    if rule is None or rule.accelerator:
        return []
    text = (
        "nms=False with head='float' ends in TOPK_V2, which stays on the CPU there; take head='raw' or leave nms= out"
    )
    return [Finding(Severity.WARN, "nms", text, rule.source)]
