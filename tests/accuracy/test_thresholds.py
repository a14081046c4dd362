"""The acceptance table on a real YOLOv8n and real images, from one bench run, and what exports cost."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from yolo_edgequant.bench.run import Row, Settings, export, run

THRESHOLDS = json.loads((Path(__file__).parent / "thresholds.json").read_text())
TRAIN_IMAGES = 341

pytestmark = [pytest.mark.slow, pytest.mark.alone]


def fraction(images):
    return images / TRAIN_IMAGES


@pytest.fixture(scope="module")
def settings(coco, reference_model):
    calibration = THRESHOLDS["calibration"]
    share = fraction(calibration["images"])
    return Settings(reference_model, coco, calibration_split=calibration["split"], fraction=share)


@pytest.fixture(scope="module")
def rows(settings, tmp_path_factory):
    wanted = [
        Row(c["format"], c["head"], c["granularity"], "nncf" if c["format"] == "openvino" else "activation")
        for c in THRESHOLDS["retention"]
    ]
    done = run(settings, wanted, tmp_path_factory.mktemp("bench"), print)
    return {(r.format, r.head, r.granularity): r for r in done}


@pytest.mark.parametrize(
    "case", THRESHOLDS["retention"], ids=lambda c: "-".join((c["format"], c["head"], c["granularity"]))
)
def test_retention(rows, case):
    row = rows[case["format"], case["head"], case["granularity"]]
    assert row.error is None
    assert row.retention >= case["least"]


def test_a_head_in_float_costs_no_time(rows):
    ratio = rows["tflite", "float", "tensor"].latency_ms / rows["tflite", "int8", "channel"].latency_ms
    assert ratio <= THRESHOLDS["latency_of_float_head_to_int8_head"]


@pytest.fixture(scope="module")
def costs(settings, tmp_path_factory):
    """Of exports: ours with few and with all images, and upstream's SavedModel with few (it takes seconds an image)."""
    ours, stock = Row("tflite", "int8", "channel", "activation"), Row("saved_model", "stock")
    few = THRESHOLDS["costs"]["images"]
    wanted = {"few": (ours, few), "all": (ours, TRAIN_IMAGES), "stock": (stock, few)}
    return {
        name: export(replace(settings, fraction=fraction(images)), row, tmp_path_factory.mktemp(name))[0]
        for name, (row, images) in wanted.items()
    }


@pytest.mark.parametrize("figure", ["export_s", "peak_mb"])
def test_tflite_costs_a_fraction_of_the_stock_saved_model(costs, figure):
    most = THRESHOLDS["costs"]["tflite_to_stock_saved_model"][figure]
    assert getattr(costs["few"], figure) <= most * getattr(costs["stock"], figure)


def test_memory_does_not_grow_with_the_images(costs):
    assert costs["all"].peak_mb <= THRESHOLDS["costs"]["peak_with_all_to_few_images"] * costs["few"].peak_mb
    assert costs["all"].export_s > costs["few"].export_s, "more images were calibrated on"
