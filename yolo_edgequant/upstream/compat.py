"""What differs between the releases of Ultralytics that are supported: one function a fact.

A function looks at what is there, not at a version. Its description says since which release its first case holds;
support for what was before ends by deleting the rest of the function. Everything else in this package is written for
the newest release.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from ultralytics.data.utils import check_det_dataset
from ultralytics.nn import modules
from ultralytics.utils import DEFAULT_CFG_DICT, torch_utils
from ultralytics.utils.tal import make_anchors

from ..errors import UnsupportedModelError


def export_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of an export as the release takes them: since 8.4.80 ``quantize=8``, before ``int8=True``."""
    arguments = dict(given)
    if "quantize" not in DEFAULT_CFG_DICT and arguments.get("quantize") == 8:
        del arguments["quantize"]
        arguments["int8"] = True
    return arguments


def precision(args: Any) -> str:
    """What an export's arguments say of its precision, in words: since 8.4.80 one argument, two before."""
    names = ["quantize"] if hasattr(args, "quantize") else ["int8", "half"]
    return ", ".join(f"{name}={getattr(args, name)!r}" for name in names)


def is_int8(args: Any) -> bool:
    """True if an export's arguments ask for INT8: since 8.4.80 ``quantize=8``, before ``int8=True``."""
    return args.quantize == 8 if hasattr(args, "quantize") else bool(args.int8)


def has_no_precision(args: Any) -> bool:
    """True if an export's arguments leave the precision open: since 8.4.80 ``quantize=None``."""
    return args.quantize is None if hasattr(args, "quantize") else not args.int8 and not args.half


def set_int8(args: Any) -> None:
    """Let an export's arguments ask for INT8: since 8.4.80 ``quantize=8``, before ``int8=True``."""
    if hasattr(args, "quantize"):
        args.quantize = 8
    else:
        args.int8 = True


def is_nms_free(args: Any) -> bool:
    """True if an export of an end-to-end model is asked to keep its NMS-free branch.

    Since 8.4.142 that is ``nms=False``, and None the default; before it was ``end2end=True``, and False the default of
    ``nms``; before 8.4.8 there was no choice.
    """
    return args.end2end is True if hasattr(args, "end2end") else args.nms is False


def keep_nms_free(args: Any, wanted: bool) -> None:
    """Let the exporter keep the NMS-free branch of an end-to-end model or not.

    Since 8.4.142 its default is not to keep it; before, ``end2end=None`` kept it.
    """
    if hasattr(args, "end2end"):
        args.end2end = wanted


def is_quantization_aware(model: nn.Module) -> bool:
    """True for a model that Ultralytics trained quantization-aware, which there is since 8.4.143."""
    return hasattr(torch_utils, "is_qat") and torch_utils.is_qat(model)


def module_class(name: str) -> type[nn.Module] | tuple[()]:
    """A class of ``ultralytics.nn.modules``, or nothing that anything is an instance of.

    SemanticSegment there is since 8.4.52, Depth since 8.4.104, Pose26 and Proto26 since 8.4.0.
    """
    return getattr(modules, name, None) or getattr(modules.block, name, ())


def chooses_among_all_classes(head: nn.Module) -> bool:
    """True for an NMS-free head that gives a cell one class at most, as its exporter may ask since 8.4.8."""
    return bool(getattr(head, "agnostic_nms", False))


class _Detect(modules.Detect):
    """The head of 8.3, which put all outputs into one tensor a level, with the parts of the head of 8.4."""

    @property
    def one2many(self) -> dict[str, nn.ModuleList]:
        return {"box_head": self.cv2, "cls_head": self.cv3}

    def forward_head(
        self, x: list[torch.Tensor], box_head: nn.ModuleList, cls_head: nn.ModuleList
    ) -> dict[str, torch.Tensor | list[torch.Tensor]]:
        boxes, scores = (
            torch.cat([branch[level](x[level]).flatten(2) for level in range(self.nl)], 2)
            for branch in (box_head, cls_head)
        )
        return {"boxes": boxes, "scores": scores, "feats": x}

    def _get_decode_boxes(self, x: dict[str, Any]) -> torch.Tensor:
        anchors, strides = make_anchors(x["feats"], self.stride, 0.5)
        return self.decode_bboxes(self.dfl(x["boxes"]), anchors.T[None]) * strides.T

    def forward(self, x: list[torch.Tensor]) -> torch.Tensor:
        raw = self.forward_head(x, **self.one2many)
        return torch.cat((self._get_decode_boxes(raw), raw["scores"].sigmoid()), 1)


def complete_head(head: nn.Module) -> None:
    """Give a head of 8.3 the parts that heads have since 8.4.0.

    Raises:
        UnsupportedModelError: it is one of 8.3 that gives more than boxes and scores, or is NMS-free.
    """
    if hasattr(head, "forward_head"):
        return
    if type(head) is not modules.Detect or head.end2end:
        raise UnsupportedModelError(
            f"INT8 export of a {type(head).__name__} head needs ultralytics 8.4.0 or later; 8.3 exports those of Detect"
        )
    head.__class__ = _Detect


def detection_data(data: str, split: str) -> dict[str, Any]:
    """Ultralytics' ``check_det_dataset``, which fetches nothing; since 8.4.92 it looks at one split alone.

    Raises:
        FileNotFoundError: the split is missing.
    """
    if "split" in inspect.signature(check_det_dataset).parameters:
        return check_det_dataset(data, autodownload=False, split=split)
    facts = check_det_dataset(data, autodownload=False)
    if not facts.get(split):
        raise FileNotFoundError(f"'{split}:' key missing")
    return facts


def set_litert_threads(threads: int) -> None:
    """Let Ultralytics' LiteRT backend use so many threads; it has a number of its own since 8.4.114."""
    if find_spec("ultralytics.nn.backends.litert") is not None:
        importlib.import_module("ultralytics.nn.backends.litert").NUM_THREADS = threads


def runs_on_intel_npu(backend: Any) -> bool:
    """True if Ultralytics runs a ``.tflite`` on an Intel NPU, which it may since 8.4.183."""
    return getattr(backend, "intel", False)


@contextmanager
def interpreter_for_tflite() -> Iterator[None]:
    """Let Ultralytics find LiteRT's interpreter, as since 8.4.83; before it took tflite-runtime or TensorFlow."""
    names = ("tflite_runtime", "tflite_runtime.interpreter")
    if find_spec("tflite_runtime") is not None or find_spec("ai_edge_litert") is None:
        yield
        return
    sys.modules |= dict.fromkeys(names, importlib.import_module("ai_edge_litert.interpreter"))
    try:
        yield
    finally:
        for name in names:
            sys.modules.pop(name, None)


def feature_keys(distillation: Any) -> list[int]:
    """The keys of a distillation's features, the head's last: since 8.4.164 positions, before indices of layers."""
    if hasattr(distillation, "teacher_feats_idx"):
        return list(range(len(distillation.feats_idx)))
    return list(distillation.feats_idx)


def with_distance(items: Any, distance: torch.Tensor) -> Any:
    """A distillation's loss items with a distance added to ``dis_loss``: since 8.4.104 a dict, before a tensor."""
    if isinstance(items, torch.Tensor):
        return torch.cat((items[:-1], items[-1:] + distance))
    return {**items, "dis_loss": items["dis_loss"] + distance}


def total_loss(trainer: Any) -> float:
    """The sum of a trainer's running losses: since 8.4.104 a dict, before a tensor."""
    losses = trainer.tloss
    return sum(part.sum().item() for part in (losses.values() if isinstance(losses, dict) else [losses]))


def decode_in_pixels(model: nn.Module, metadata: dict[str, Any]) -> None:
    """Undo what contrib/ultralytics has the exporter do with an INT8 SavedModel: coordinates of 0 to 1, and an entry.

    Args:
        model: an exporter's, changed in place; one of a plain release is left as it is.
        metadata: the exporter's, changed in place.
    """
    if metadata.pop("normalized", False):
        for module in model.modules():
            for name in ("_get_decode_boxes", "kpts_decode"):
                vars(module).pop(name, None)
