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
def exports(coco, reference_model, tmp_path_factory):
    """Ours with few and with all images, and one as upstream makes it, with as many images as the docs advise."""
    ours, litert = Row("tflite", "int8", "channel", "activation"), Row("litert", "float", "channel", "activation")
    few, advised = COSTS["images"]["few"], COSTS["images"]["advised"]
    wanted = {
        "few": (ours, few),
        "all": (ours, TRAIN_IMAGES),
        "float head": (Row("tflite", "float", "tensor", "activation"), few),
        "litert": (litert, advised),
        "stock": (Row("litert", "stock"), advised),
    }
    return {
        name: export(
            Settings(reference_model, coco, calibration_split="train", fraction=images / TRAIN_IMAGES),
            row,
            tmp_path_factory.mktemp(name),
        )
        for name, (row, images) in wanted.items()
    }


@pytest.mark.parametrize("figure", ["export_s", "peak_mb"])
def test_litert_costs_a_fraction_of_the_stock_export(exports, figure):
    ours, stock = (getattr(exports[name][0], figure) for name in ("litert", "stock"))
    print(f"{figure}: {ours:.1f} of {stock:.1f}, {ours / stock:.3f}")
    assert ours <= COSTS["litert_to_stock_litert"][figure] * stock


def test_memory_does_not_grow_with_the_images(exports):
    every, few = exports["all"][0], exports["few"][0]
    assert every.peak_mb <= COSTS["peak_with_all_to_few_images"] * few.peak_mb
    assert every.export_s > few.export_s, "more images were calibrated on"


def test_a_head_in_float_costs_no_time(exports):
    paths = [exports[name][1] for name in ("float head", "few")]
    with_float, without = worker.latency(paths, threads=2)["milliseconds"]
    assert with_float <= COSTS["latency_of_float_head_to_int8_head"] * without
