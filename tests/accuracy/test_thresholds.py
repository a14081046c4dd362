"""The acceptance table on a real YOLOv8n and real images, from one bench run."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from yolo_edgequant.bench.run import Row, Settings, run

THRESHOLDS = json.loads((Path(__file__).parent / "thresholds.json").read_text())
TRAIN_IMAGES = 341

pytestmark = [pytest.mark.slow, pytest.mark.alone]


@pytest.fixture(scope="module")
def rows(coco, reference_model, tmp_path_factory):
    settings = Settings(
        reference_model,
        coco,
        calibration_split=THRESHOLDS["calibration"]["split"],
        fraction=THRESHOLDS["calibration"]["images"] / TRAIN_IMAGES,
    )
    wanted = [
        Row(c["format"], c["head"], c["granularity"], "nncf" if c["format"] == "openvino" else "activation")
        for c in THRESHOLDS["retention"]
    ]
    folder = tmp_path_factory.mktemp("bench")
    done = run(settings, [*wanted, Row("saved_model", "stock")], folder, print)
    more = run(replace(settings, fraction=1.0), [Row("tflite", "int8", "channel", "activation")], folder / "all", print)
    return {(r.format, r.head, r.granularity): r for r in done} | {"all images": more[-1]}


@pytest.mark.parametrize(
    "case", THRESHOLDS["retention"], ids=lambda c: "-".join((c["format"], c["head"], c["granularity"]))
)
def test_retention(rows, case):
    row = rows[case["format"], case["head"], case["granularity"]]
    assert row.error is None
    assert row.retention >= case["least"]


@pytest.mark.parametrize("format", ["litert", "tflite"])
def test_a_head_in_float_costs_no_time(rows, format):
    ratio = rows[format, "float", "channel"].latency_ms / rows[format, "int8", "channel"].latency_ms
    assert ratio <= THRESHOLDS["latency_of_float_head_to_int8_head"]


@pytest.mark.parametrize("figure", ["export_s", "peak_mb"])
def test_tflite_costs_a_fraction_of_the_stock_saved_model(rows, figure):
    stock = rows["saved_model", "stock", "-"]
    assert stock.error is None
    ours = getattr(rows["tflite", "int8", "channel"], figure)
    assert ours <= THRESHOLDS["tflite_to_stock_saved_model"][figure] * getattr(stock, figure)


def test_memory_does_not_grow_with_the_images(rows):
    few, many = rows["tflite", "int8", "channel"], rows["all images"]
    assert many.peak_mb <= THRESHOLDS["peak_with_341_to_128_images"] * few.peak_mb
    assert many.export_s > few.export_s, "more images were calibrated on"
