"""A model without any arithmetic, for the stages that only hand values on."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from yolo_edgequant.contract import Contract, Output
from yolo_edgequant.options import ExportOptions
from yolo_edgequant.targets.formats import PROFILES, resolve
from yolo_edgequant.verification.agreement import Agreement

CONTRACT = Contract(
    task="detect",
    names={0: "a"},
    stride=32,
    end2end=False,
    nms=False,
    kpt_shape=None,
    head="raw",
    granularity="channel",
    ranges="activation",
    corrections="all",
    io="int8",
    channels_last=True,
    outputs=(Output("detections"),),
)


def request(**options):
    return resolve(PROFILES["tflite"], ExportOptions(**options))


@dataclass
class FakeBuild:
    """Its layers are letters; a model is the text of those in float, and the more of them, the better it agrees."""

    agreement: Agreement = field(default_factory=lambda: Agreement(4, 10, 0.9, {"detections": 20.0}, 5))
    holdout: list = field(default_factory=lambda: [np.zeros((1, 8, 8, 3), np.float32)])
    layers: tuple = ("a", "b", "c", "d")
    contract: Contract = CONTRACT

    def quantize(self, in_float=()):
        return "model " + "".join(in_float)

    def corrected(self, model, in_float=()):
        assert model == self.quantize(in_float)
        return model.replace("model", "corrected model")

    def noise(self, alone):
        return {"a": 0.1, "b": 0.4, "c": 0.3, "d": 0.2}[alone]

    def compare(self, model):
        return replace(self.agreement)

    def worst_tensor(self, model):
        return f"worst of {model}", 0.03

    def save(self, model, folder):
        file = Path(folder) / "model.txt"
        file.write_text("float" if model is None else model)
        return file
