"""What exports and files of a real YOLOv8n cost."""

import json
from pathlib import Path

import pytest

from yolo_edgequant.bench import worker
from yolo_edgequant.bench.run import Row, Settings, export

COSTS = json.loads((Path(__file__).parent / "thresholds.json").read_text())["costs"]
TRAIN_IMAGES = 341

pytestmark = pytest.mark.accuracy


@pytest.fixture(scope="module")
def costs(coco, reference_model, tmp_path_factory):
    """Exports a row, calibrated on so many images: the row with what that cost, and the file."""

    def measured(row, images):
        settings = Settings(reference_model, coco, calibration_split="train", fraction=images / TRAIN_IMAGES)
        return export(settings, row, tmp_path_factory.mktemp("export"))

    return measured


@pytest.fixture(scope="module")
def exports(costs):
    """Ours with few and with all images, and upstream's SavedModel with few (it takes seconds an image)."""
    ours, few = Row("tflite", "int8", "channel", "activation"), COSTS["images"]
    wanted = {
        "few": (ours, few),
        "all": (ours, TRAIN_IMAGES),
        "float head": (Row("tflite", "float", "tensor", "activation"), few),
        "stock": (Row("saved_model", "stock"), few),
    }
    return {name: costs(row, images) for name, (row, images) in wanted.items()}


@pytest.mark.parametrize("figure", ["export_s", "peak_mb"])
def test_tflite_costs_a_fraction_of_the_stock_saved_model(exports, figure):
    few, stock = (getattr(exports[name][0], figure) for name in ("few", "stock"))
    assert few <= COSTS["tflite_to_stock_saved_model"][figure] * stock


def test_litert_takes_half_of_the_stock_exports_memory(costs):
    """With as many images as the docs advise: stock keeps all of them."""
    images, share = COSTS["litert_to_stock_litert"]["images"], COSTS["litert_to_stock_litert"]["peak_mb"]
    (ours, _), (stock, _) = (
        costs(row, images) for row in (Row("litert", "float", "channel", "activation"), Row("litert", "stock"))
    )
    assert ours.peak_mb <= share * stock.peak_mb


def test_memory_does_not_grow_with_the_images(exports):
    every, few = exports["all"][0], exports["few"][0]
    assert every.peak_mb <= COSTS["peak_with_all_to_few_images"] * few.peak_mb
    assert every.export_s > few.export_s, "more images were calibrated on"


def test_a_head_in_float_costs_no_time(exports):
    paths = [exports[name][1] for name in ("float head", "few")]
    with_float, without = worker.latency(paths, threads=2)["milliseconds"]
    assert with_float <= COSTS["latency_of_float_head_to_int8_head"] * without
