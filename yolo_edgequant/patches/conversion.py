"""Upstream's OpenVINO export: in an INT8 export of ours the way to every file but a SavedModel's folder.

Upstream's way to ``.tflite`` has changed with its releases; its way to OpenVINO has always been the same, and prepares
a model as it is, its NMS-free branch included.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ultralytics.engine.exporter import Exporter

from ..targets.formats import Format
from .exporter import job_of


def export_openvino(original: Callable[..., str], self: Exporter, *args: Any, **kwargs: Any) -> str:
    """``Exporter.export_openvino``, which in an INT8 export of ours writes the folder or file that was asked for."""
    job = job_of(self)
    if job is None:
        return original(self, *args, **kwargs)
    if job.request.profile.format == Format.OPENVINO:
        from .openvino import write_openvino

        return write_openvino(self)
    from .litert import write_tflite

    return write_tflite(self)
