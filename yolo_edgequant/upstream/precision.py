"""``precision="auto"``: keep as few layers in float as the asked retention needs, judged on the calibration images."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..errors import CalibrationError
from ..files import whole
from .making import Making, write

if TYPE_CHECKING:
    import openvino as ov
    from torch.utils.data import DataLoader

    from ..quantization.recipe import Rule
    from ..quantization.sensitivity import Cost, Trial
    from ..verification.agreement import Agreement
    from .export import Job


class Layers(Protocol):
    """The layers of a model that can each be in 8 bits or in float; `names` are theirs, in execution order."""

    names: Sequence[str]

    def noise(self, alone: str) -> float:
        """Noise of the outputs, as a share of their variance, with this layer alone in 8 bits."""

    def file(self, in_float: Sequence[str] | None, folder: Path) -> Path:
        """An INT8 file, in a folder of its own, with these layers in float; the float file for None."""

    def latency(self, file: Path) -> float:
        """Median milliseconds of the interpreter alone."""


def choose(layers: Layers, job: Job, loader: DataLoader, metadata: dict[str, Any], report: Path) -> list[str]:
    """Rank the layers by what each costs alone, then keep the costliest in float until the retention is reached.

    Args:
        layers: of the model.
        job: the export; its request has the retention to reach.
        loader: of the calibration images, on whose labels the mAP is measured.
        metadata: of the file; what was chosen is noted in it.
        report: where to write the ranking and the trials, as JSON and, with the suffix changed, as PNG.

    Returns:
        The layers that stay in float.

    Raises:
        CalibrationError: the calibration images have no labels.
    """
    from rich.console import Console
    from rich.progress import track
    from ultralytics.utils import LOGGER

    from ..quantization import sensitivity

    least = job.request.min_retention
    LOGGER.info(f"measuring {len(layers.names)} layers, each alone in 8 bits")
    ranked = sensitivity.rank(track(layers.names, "measuring layers", transient=True), layers.noise)

    def costliest(count: int) -> list[str]:
        return [cost.layer for cost in ranked[:count]]

    with tempfile.TemporaryDirectory() as place:
        data = _labelled(loader, metadata, Path(place))

        def made(in_float: list[str] | None) -> Path:
            folder = Path(tempfile.mkdtemp(dir=place))
            return layers.file(in_float, folder)

        float_map = _accuracy(made(None), data, job.exporter)
        if not float_map:
            raise CalibrationError("precision='auto' measures mAP on the calibration images, which have no labels")

        def measure(count: int) -> Trial:
            file = made(costliest(count))
            retention = _accuracy(file, data, job.exporter) / float_map
            trial = sensitivity.Trial(count, retention, layers.latency(file))
            LOGGER.info(f"{count} layers in float: retention {trial.retention:.1%}, {trial.latency_ms:.1f} ms")
            return trial

        trials = sensitivity.fewest(len(ranked), measure, least)
    chosen = trials[-1]
    if chosen.retention < least:
        LOGGER.warning(
            f"min_retention={least} is out of reach: {trials[0].retention:.1%} with all layers in float, "
            f"{chosen.retention:.1%} with none, which is what the file has; head='float' or 'raw' may be worth more"
        )
    Console().print(_table(ranked, chosen.in_float), _trials(trials))
    _save(ranked, trials, report)
    LOGGER.info(f"{chosen.in_float} of {len(ranked)} layers stay in float; see {report}")
    metadata["edgequant"]["precision"] = {"in_float": chosen.in_float, "retention": chosen.retention}
    return costliest(chosen.in_float)


class OfTFLite:
    """The layers of a ``.tflite`` file.

    Args:
        making: the file.

    Raises:
        CalibrationError: no calibration image could be held back.
    """

    def __init__(self, making: Making) -> None:
        from ..quantization import sensitivity

        _check_images(making.held)
        self._making, self._graph = making, making.calibrated.graph
        self._operations = sensitivity.layers(self._graph)
        self.names = list(self._operations)

    def rule(self, in_float: Sequence[str]) -> Rule | None:
        """What keeps these layers in float; None for none."""
        from ..quantization.recipe import Rule

        kept = tuple(op for name in in_float for op in self._operations[name])
        return Rule(f"the {len(in_float)} most sensitive layers", "float", kept) if kept else None

    def noise(self, alone: str) -> float:
        """See :class:`Layers`."""
        from ..quantization.recipe import Rule

        own = {op.index for op in self._operations[alone]}
        others = tuple(op for op in self._graph.operations if op.index not in own)
        return _noise(self._making.compare(self._making.quantise(Rule("all other layers", "float", others))))

    def file(self, in_float: Sequence[str] | None, folder: Path) -> Path:
        """See :class:`Layers`."""
        float_content = self._making.calibrated.content
        content = float_content if in_float is None else self._making.quantise(self.rule(in_float))
        write(folder / "model.tflite", content, self._making.metadata)
        return folder / "model.tflite"

    def latency(self, file: Path) -> float:
        """See :class:`Layers`."""
        from .. import pipeline

        return pipeline.latency(file.read_bytes(), self._making.held[0])


class OfOpenVINO:
    """The layers of an OpenVINO model.

    Args:
        job: the export.
        float_model, quantised: of the same operations.
        images: to compare them on, (1, 3, H, W) float32 each.

    Raises:
        CalibrationError: there are none.
    """

    def __init__(self, job: Job, float_model: ov.Model, quantised: ov.Model, images: Sequence[np.ndarray]) -> None:
        from ..quantization import openvino

        _check_images(images)
        self._metadata, self._size = job.exporter.metadata, (int(job.exporter.imgsz[0]), int(job.exporter.imgsz[1]))
        self._float, self._quantised, self._images = float_model, quantised, images
        self._reference = openvino.run(float_model, images, exact=True)
        self.names = openvino.quantised_layers(quantised, float_model)

    def model(self, in_float: Sequence[str]) -> ov.Model:
        """The quantised model with these layers in float."""
        from ..quantization import openvino

        return openvino.in_float(self._quantised, self._float, in_float)

    def noise(self, alone: str) -> float:
        """See :class:`Layers`."""
        from ..quantization import openvino
        from ..verification.agreement import compare

        model = self.model([name for name in self.names if name != alone])
        return _noise(compare(self._metadata, self._size, self._reference, openvino.run(model, self._images)))

    def file(self, in_float: Sequence[str] | None, folder: Path) -> Path:
        """See :class:`Layers`."""
        import openvino as ov
        from ultralytics.utils import YAML

        made = folder / "model_openvino_model"
        made.mkdir()
        ov.save_model(self._float if in_float is None else self.model(in_float), made / "model.xml", False)
        YAML.save(made / "metadata.yaml", self._metadata)
        return made

    def latency(self, file: Path) -> float:
        """See :class:`Layers`."""
        from ..quantization import openvino

        return openvino.latency(file / "model.xml", self._images[0])


def _check_images(images: Sequence[np.ndarray]) -> None:
    if not images:
        raise CalibrationError("precision='auto' needs 8 calibration images or more, some to measure the layers on")


def _noise(found: Agreement) -> float:
    """Noise as a share of the variance, on average over the outputs, from their signal-to-noise in dB."""
    shares = [10 ** (-snr / 10) for snr in found.snr_db.values()]
    return float(np.mean(shares)) if shares else 1 - found.quality


def _labelled(loader: DataLoader, metadata: dict[str, Any], folder: Path) -> Path:
    """A data set's YAML with the calibration images alone; Ultralytics finds their labels beside them."""
    from ultralytics.utils import YAML

    images = folder / "images.txt"
    images.write_text("".join(f"{Path(file).resolve()}\n" for file in loader.dataset.im_files))
    facts = {key: metadata[key] for key in ("names", "kpt_shape") if key in metadata}
    YAML.save(folder / "data.yaml", {"path": str(folder), "train": str(images), "val": str(images), **facts})
    return folder / "data.yaml"


def _accuracy(file: Path, data: Path, exporter: Any) -> float:
    """mAP50-95 of an exported file, of masks or keypoints where there are any."""
    from ultralytics import YOLO

    task = exporter.model.task
    with contextlib.redirect_stdout(io.StringIO()):
        made = YOLO(file, task=task).val(
            data=str(data), imgsz=max(exporter.imgsz), batch=1, workers=0, plots=False, verbose=False
        )
    return float(getattr(made, {"segment": "seg", "pose": "pose"}.get(task, "box")).map)


def _table(ranked: list[Cost], kept: int) -> Any:
    from rich.table import Table

    made = Table(title="layers by the noise that each alone adds to the outputs", caption="the ten costliest")
    for title in ("layer", "noise", "precision"):
        made.add_column(title)
    for number, cost in enumerate(ranked[:10]):
        made.add_row(cost.layer[-70:], f"{cost.noise:.2e}", "float" if number < kept else "int8")
    return made


def _trials(trials: list[Trial]) -> Any:
    from rich.table import Table

    made = Table(title="layers in float, on the calibration images")
    for title in ("layers", "retention", "latency ms"):
        made.add_column(title, justify="right")
    for trial in sorted(trials, key=lambda trial: trial.in_float):
        made.add_row(str(trial.in_float), f"{trial.retention:.1%}", f"{trial.latency_ms:.1f}")
    return made


def _save(ranked: list[Cost], trials: list[Trial], report: Path) -> None:
    """The ranking and the trials as JSON, and as a plot beside it."""
    import matplotlib.pyplot as plt

    ordered = sorted(trials, key=lambda trial: trial.in_float)
    layers = [{"layer": cost.layer, "noise": cost.noise} for cost in ranked]
    with whole(report) as temporary:
        temporary.write_text(json.dumps({"layers": layers, "trials": [asdict(t) for t in ordered]}, indent=1) + "\n")
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    left.bar(range(len(ranked)), [cost.noise for cost in ranked])
    left.set(yscale="log", xlabel="layer, the costliest first", ylabel="noise / variance of the outputs")
    right.plot([t.in_float for t in ordered], [t.retention for t in ordered], "o-")
    right.set(xlabel="layers in float", ylabel="retention, calibration images")
    times = right.twinx()
    times.plot([t.in_float for t in ordered], [t.latency_ms for t in ordered], "s--", color="tab:red")
    times.set_ylabel("latency ms", color="tab:red")
    with whole(report.with_suffix(".png")) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    plt.close(figure)
