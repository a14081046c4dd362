"""What the messages in contrib/ultralytics say, on a real YOLOv8n and real images, without this library."""

import json

import pytest

from tests.test_upstream_patches import exports
from tests.upstream_patches import BASE, patched, read_series, source
from yolo_edgequant.series import SERIES, folder_of

IMAGES = 150  # the share has a standard error of about a point and a half then
LEAST = 0.95

pytestmark = pytest.mark.accuracy


def test_the_series_alone_keeps_what_its_messages_say(coco, reference_model, tmp_path):
    images = sorted((coco.parent / "images" / "val_more").glob("*.jpg"))[:IMAGES]
    (tmp_path / "val.txt").write_text("\n".join(map(str, images)))
    names = {number: str(number) for number in range(80)}
    data = {"path": str(coco.parent), "train": "images/train", "val": str(tmp_path / "val.txt"), "names": names}
    (tmp_path / "data.yaml").write_text(json.dumps(data))  # which is YAML, too
    assert patched(source(BASE, tmp_path), tmp_path / "patched", read_series(folder_of(SERIES))) == ""
    arguments = (str(reference_model), str(tmp_path / "data.yaml"), "--imgsz", "640", "--fraction", "0.376")
    assert exports(tmp_path / "patched", tmp_path / "exports", *arguments)["share"] >= LEAST
