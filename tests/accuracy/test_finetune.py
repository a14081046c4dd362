"""The drawn data: ReLU6 wins SiLU's accuracy back in minutes, and its integer file with one scale a tensor keeps it."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from ultralytics import YOLO

import yolo_edgequant
from yolo_edgequant.demo.dataset import data_set
from yolo_edgequant.demo.train import WEIGHTS

THRESHOLDS = json.loads((Path(__file__).parent / "thresholds.json").read_text())["finetune"]

pytestmark = pytest.mark.export


@pytest.fixture(scope="module")
def recovered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finetune")
    data = data_set(folder / "data", THRESHOLDS["images"], 200, 160, seed=1)
    console = Console(file=io.StringIO())
    done = yolo_edgequant.finetune(
        WEIGHTS, data, "relu6", out=folder / "run", console=console, epochs=THRESHOLDS["epochs"]
    )
    print(done)
    return done, data


def test_fp32_is_within_a_point_of_the_original(recovered):
    done, _ = recovered
    assert done.changed < done.teacher - 0.3, "there was something to win back"
    assert done.recovered >= done.teacher - THRESHOLDS["lost_at_most"]


def test_an_integer_file_with_one_scale_a_tensor_keeps_it(recovered):
    done, data = recovered
    few = {"data": data, "split": "train", "fraction": 128 / THRESHOLDS["images"]}
    file = YOLO(done.checkpoint).export(format="tflite", quantize=8, head="raw", granularity="tensor", **few)
    accuracy = YOLO(file, task="detect").val(data=data, imgsz=160, plots=False, verbose=False).box.map
    print(f"retention {accuracy / done.recovered:.1%}")
    assert accuracy >= THRESHOLDS["tensor_retention"] * done.recovered
