"""Each fact that differs between releases, both cases. The releases themselves are run by tests/versions.py."""

import importlib
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.nn import modules
from ultralytics.nn.distill_model import DistillationModel

from yolo_edgequant.demo.train import WEIGHTS
from yolo_edgequant.errors import UnsupportedModelError
from yolo_edgequant.upstream import compat


def test_since_8_4_80_int8_is_quantize_8_and_before_int8_true(monkeypatch):
    given = {"format": "tflite", "quantize": 8}
    assert compat.export_arguments(given) == given
    monkeypatch.setattr(compat, "DEFAULT_CFG_DICT", {"int8": False})
    assert compat.export_arguments(given) == {"format": "tflite", "int8": True}
    assert compat.export_arguments({"quantize": 16}) == {"quantize": 16}, "upstream's own error is for it"
    assert given == {"format": "tflite", "quantize": 8}


@pytest.mark.parametrize(
    ("args", "int8", "open", "words"),
    [
        ({"quantize": 8}, True, False, "quantize=8"),
        ({"quantize": 16}, False, False, "quantize=16"),
        ({"quantize": None}, False, True, "quantize=None"),
        ({"int8": True, "half": False}, True, False, "int8=True, half=False"),
        ({"int8": False, "half": True}, False, False, "int8=False, half=True"),
        ({"int8": False, "half": False}, False, True, "int8=False, half=False"),
    ],
)
def test_before_8_4_80_an_exports_precision_is_two_arguments(args, int8, open, words):
    args = SimpleNamespace(**args)
    assert compat.is_int8(args) == int8
    assert compat.has_no_precision(args) == open
    assert compat.precision(args) == words
    compat.set_int8(args)
    assert compat.is_int8(args)


@pytest.mark.parametrize(
    ("args", "wanted"),
    [
        ({"nms": None}, False),
        ({"nms": True}, False),
        ({"nms": False}, True),
        ({"nms": False, "end2end": None}, False),
        ({"nms": False, "end2end": False}, False),
        ({"nms": False, "end2end": True}, True),
    ],
)
def test_before_8_4_142_a_model_stays_nms_free_by_end2end_and_since_by_nms(args, wanted):
    args = SimpleNamespace(**args)
    assert compat.is_nms_free(args) == wanted
    compat.keep_nms_free(args, wanted)
    assert getattr(args, "end2end", wanted) == wanted, "None kept the branch"
    assert hasattr(args, "end2end") == ("end2end" in vars(args))


def test_before_8_4_143_no_model_was_trained_quantization_aware(monkeypatch):
    model = YOLO(WEIGHTS).model
    monkeypatch.setattr(compat.torch_utils, "is_qat", lambda model: True)
    assert compat.is_quantization_aware(model)
    monkeypatch.delattr(compat.torch_utils, "is_qat")
    assert not compat.is_quantization_aware(model)


def test_classes_of_later_releases_are_of_nothing_before():
    assert compat.module_class("Depth") is modules.Depth
    assert compat.module_class("Proto26") is modules.block.Proto26
    assert not isinstance(nn.Identity(), compat.module_class("Proto99"))


def test_before_8_4_8_a_head_has_no_agnostic_nms():
    head = YOLO(WEIGHTS).model.model[-1]
    head.agnostic_nms = True
    assert compat.chooses_among_all_classes(head)
    assert not compat.chooses_among_all_classes(nn.Identity())


class Head83(nn.Module):
    """What a Detect of 8.3 has, from one of today."""

    def __init__(self, head):
        super().__init__()
        for name in ("nl", "reg_max", "nc", "stride", "cv2", "cv3", "dfl", "end2end", "xyxy", "export"):
            setattr(self, name, getattr(head, name))


def test_a_head_of_8_3_is_given_the_parts_of_8_4_and_decodes_the_same(monkeypatch):
    head = YOLO(WEIGHTS).model.eval().model[-1]
    maps = [torch.rand(1, level[0].conv.in_channels, n, n) for level, n in zip(head.cv2, (8, 4, 2), strict=True)]
    head.export = True
    with torch.no_grad():
        expected = head([values.clone() for values in maps])
        raw = head.forward_head(maps, **head.one2many)
    completed = vars(compat)["_Detect"].__dict__
    assert {"forward", "forward_head", "one2many", "_get_decode_boxes"} <= completed.keys()
    head.__class__ = vars(compat)["_Detect"]
    with torch.no_grad():
        torch.testing.assert_close(head([values.clone() for values in maps]), expected)
        ours = head.forward_head(maps, **head.one2many)
    for name in ("boxes", "scores"):
        torch.testing.assert_close(ours[name], raw[name])


def test_a_head_of_8_3_with_more_than_boxes_is_refused_and_one_of_8_4_left_as_it_is(monkeypatch):
    today = YOLO(WEIGHTS).model.model[-1]
    kind = type(today)
    compat.complete_head(today)
    assert type(today) is kind
    with pytest.raises(UnsupportedModelError, match=r"a Head83 head needs ultralytics 8\.4\.0"):
        compat.complete_head(Head83(today))
    monkeypatch.setattr(compat.modules, "Detect", Head83)
    old = Head83(today)
    compat.complete_head(old)
    assert type(old) is vars(compat)["_Detect"]


def test_before_8_4_92_all_splits_of_a_data_set_were_looked_at(monkeypatch, shapes_data):
    today = compat.detection_data(str(shapes_data), "val")

    def check_det_dataset(dataset, autodownload=True):
        assert not autodownload
        return {"train": "there", "val": "there", "test": None}

    monkeypatch.setattr(compat, "check_det_dataset", check_det_dataset)
    assert compat.detection_data(str(shapes_data), "val")["val"] == "there"
    assert "val" in today
    with pytest.raises(FileNotFoundError, match="'test:' key missing"):
        compat.detection_data(str(shapes_data), "test")


def test_before_8_4_114_upstreams_litert_backend_had_no_number_of_threads(monkeypatch):
    litert = importlib.import_module("ultralytics.nn.backends.litert")
    monkeypatch.setattr(litert, "NUM_THREADS", 5)
    compat.set_litert_threads(3)
    assert litert.NUM_THREADS == 3
    monkeypatch.setattr(compat, "find_spec", lambda name: None)
    compat.set_litert_threads(4)
    assert litert.NUM_THREADS == 3


def test_before_8_4_183_no_tflite_ran_on_an_intel_npu():
    assert compat.runs_on_intel_npu(SimpleNamespace(intel=True))
    assert not compat.runs_on_intel_npu(SimpleNamespace())


def test_before_8_4_83_upstream_finds_litert_under_the_name_of_tflite_runtime(monkeypatch):
    with compat.interpreter_for_tflite():
        from tflite_runtime.interpreter import Interpreter
    assert Interpreter.__module__.startswith("ai_edge_litert")
    assert not {"tflite_runtime", "tflite_runtime.interpreter"} & sys.modules.keys()
    monkeypatch.setattr(compat, "find_spec", lambda name: True)
    with compat.interpreter_for_tflite():
        assert "tflite_runtime" not in sys.modules, "the real one is left to be found"


def test_before_8_4_164_features_of_a_distillation_had_the_indices_of_layers():
    teacher, student = YOLO(WEIGHTS).model, YOLO(WEIGHTS).model
    student.args = get_cfg(overrides={"imgsz": 64})
    model = DistillationModel(teacher, student)
    assert compat.feature_keys(model) == list(range(len(model.feats_idx)))
    before = SimpleNamespace(feats_idx=[15, 18, 21, 22])
    assert compat.feature_keys(before) == [15, 18, 21, 22]


def test_before_8_4_104_losses_were_a_tensor():
    items = {"box_loss": torch.tensor(1.0), "dis_loss": torch.tensor(2.0)}
    assert compat.with_distance(items, torch.tensor(0.5)) == {"box_loss": 1.0, "dis_loss": 2.5}
    assert items["dis_loss"] == 2.0
    before = torch.tensor([1.0, 2.0])
    assert compat.with_distance(before, torch.tensor(0.5)).tolist() == [1.0, 2.5]
    assert compat.total_loss(SimpleNamespace(tloss=items)) == 3.0
    assert compat.total_loss(SimpleNamespace(tloss=before)) == 3.0


def test_what_the_series_for_upstream_does_to_a_saved_model_is_undone():
    model = YOLO(WEIGHTS).model
    head = model.model[-1]
    image = torch.zeros(1, 3, 64, 64)
    head.export, head.format = True, "saved_model"
    plain = model.eval()(image)
    head._get_decode_boxes = lambda *_: plain[:, :4] / 64
    metadata = {"normalized": True, "stride": 32}
    compat.decode_in_pixels(model, metadata)
    assert metadata == {"stride": 32}
    assert torch.equal(model(image), plain)
    head._get_decode_boxes = "another's"
    compat.decode_in_pixels(model, metadata)
    assert head._get_decode_boxes == "another's"
