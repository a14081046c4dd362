"""``precision="auto"``: keep as few layers in float as the asked retention needs, judged on the calibration images."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np

from ..errors import CalibrationError
from ..files import whole
from .making import Making, write

if TYPE_CHECKING:
    import openvino as ov
    from torch.utils.data import DataLoader

    from ..quantization.recipe import Rule
    from ..quantization.sensitivity import Cost, Trial
    from .export import Job

_NO_LABELS = "precision='auto' measures mAP on the calibration images, which have no labels"


def choose(making: Making, loader: DataLoader, report: Path) -> Rule | None:
    """Rank the layers by what each costs alone, then keep the costliest in float until the retention is reached.

    Args:
        making: the file; its request has the retention to reach.
        loader: of the calibration images, on whose labels the mAP is measured.
        report: where to write the ranking and the trials, as JSON and, with the suffix changed, as PNG.

    Returns:
        The rule for what stays in float, None if nothing has to.

    Raises:
        CalibrationError: the calibration images have no labels, or none could be held back.
    """
    from rich.console import Console
    from rich.progress import track
    from ultralytics.utils import LOGGER

    from .. import pipeline
    from ..quantization import sensitivity

    if not making.held:
        raise CalibrationError("precision='auto' needs 8 calibration images or more, some to measure the layers on")
    least, graph = making.request.min_retention, making.calibrated.graph

    def noise(rule: Rule) -> float:
        found = making.compare(making.quantise(rule))
        shares = [10 ** (-snr / 10) for snr in found.snr_db.values()]
        return float(np.mean(shares)) if shares else 1 - found.quality

    layers = sensitivity.layers(graph)
    LOGGER.info(f"measuring {len(layers)} layers, each alone in 8 bits")
    ranked = sensitivity.rank(graph, noise, track(layers, "measuring layers", transient=True))
    with tempfile.TemporaryDirectory() as folder:
        data = _labelled(loader, making.metadata, Path(folder))
        file = Path(folder) / "trial.tflite"

        def accuracy(content: bytes) -> float:
            file.unlink(missing_ok=True)
            write(file, content, making.metadata)
            return _accuracy(file, data, making.exporter)

        float_map = accuracy(making.calibrated.content)
        if not float_map:
            raise CalibrationError(_NO_LABELS)

        def measure(count: int) -> Trial:
            content = making.quantise(sensitivity.in_float(ranked, count))
            milliseconds = pipeline.latency(content, making.held[0])
            trial = sensitivity.Trial(count, accuracy(content) / float_map, milliseconds)
            LOGGER.info(f"{count} layers in float: retention {trial.retention:.1%}, {trial.latency_ms:.1f} ms")
            return trial

        trials = sensitivity.fewest(ranked, measure, least)
    chosen = trials[-1]
    if chosen.retention < least:
        LOGGER.warning(
            f"min_retention={least} was not reached: {chosen.retention:.1%} is the best there was; "
            "head= and ranges= may be worth more"
        )
    Console().print(_table(ranked, chosen.in_float), _trials(trials))
    _save(ranked, trials, report)
    LOGGER.info(f"{chosen.in_float} of {len(layers)} layers stay in float; see {report}")
    making.metadata["edgequant"]["precision"] = {"in_float": chosen.in_float, "retention": chosen.retention}
    return sensitivity.in_float(ranked, chosen.in_float)


class Control:
    """The accuracy of OpenVINO models on the calibration images, for NNCF's accuracy control.

    Args:
        job: the export.
        float_model: whose accuracy is the measure; of the same input and outputs as the models to come.
        loader: of the calibration images.
        folder: for files, empty.

    Raises:
        CalibrationError: the calibration images have no labels.
    """

    def __init__(self, job: Job, float_model: ov.Model, loader: DataLoader, folder: Path) -> None:
        import openvino as ov
        from ultralytics.utils import YAML

        self._exporter = job.exporter
        self._data = _labelled(loader, job.exporter.metadata, folder)
        self._file = folder / "model_openvino_model"
        self._file.mkdir()
        ov.save_model(float_model, self._file / "model.xml", compress_to_fp16=False)
        YAML.save(self._file / "metadata.yaml", job.exporter.metadata)
        self._float = _accuracy(self._file, self._data, self._exporter)
        if not self._float:
            raise CalibrationError(_NO_LABELS)
        self.retention = 0.0

    def accuracy(self, compiled: ov.CompiledModel) -> float:
        """mAP50-95 of a model; `retention` becomes its share of the float model's."""
        from ultralytics.nn.backends.openvino import OpenVINOBackend
        from ultralytics.utils import LOGGER

        load = OpenVINOBackend.load_model

        def loaded(self: OpenVINOBackend, weight: Any) -> None:
            load(self, weight)
            self.ov_compiled_model = compiled

        with mock.patch.object(OpenVINOBackend, "load_model", loaded):
            found = _accuracy(self._file, self._data, self._exporter)
        self.retention = found / self._float
        LOGGER.info(f"retention {self.retention:.1%} on the calibration images")
        return found


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
        made.add_row(cost.layer.name[-70:], f"{cost.noise:.2e}", "float" if number < kept else "int8")
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
    layers = [{"layer": cost.layer.name, "noise": cost.noise} for cost in ranked]
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
