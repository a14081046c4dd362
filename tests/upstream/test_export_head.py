import copy

import pytest
import torch
from ultralytics import YOLO

from yolo_edgequant.contract import Output, TopK, Trained
from yolo_edgequant.demo.train import WEIGHTS
from yolo_edgequant.options import ExportOptions
from yolo_edgequant.targets.formats import PROFILES, resolve
from yolo_edgequant.upstream.export_head import as_exported, prepare

SMALL = WEIGHTS.parents[2] / "tests" / "weights"
SIZE = (160, 160)


def prepared(file, format, head, trained=None, nms_free=False, outputs=None):
    model, facts = as_exported(YOLO(file).model, SIZE, nms_free)
    request = resolve(PROFILES[format], ExportOptions(head=head, outputs=outputs))
    return model, prepare(model, request, SIZE, facts, trained)


def outputs_of(model):
    with torch.no_grad():
        outputs = model(torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(0)))
    return outputs if isinstance(outputs, tuple) else (outputs,)


@pytest.mark.parametrize(
    ("file", "format", "head", "names"),
    [
        (WEIGHTS, "tflite", "int8", ["detections"]),
        (WEIGHTS, "openvino", "float", ["detections"]),
        (SMALL / "shapes-seg.pt", "litert", "float", ["detections", "prototypes"]),
        (SMALL / "shapes-seg.pt", "tflite", "int8", ["detections", "mask_coefficient", "prototypes"]),
        (SMALL / "shapes-pose.pt", "tflite", "int8", ["detections", "kpts"]),
        (SMALL / "shapes-obb.pt", "tflite", "int8", ["detections", "angle"]),
        (SMALL / "shapes-obb.pt", "saved_model", "int8", ["detections"]),
    ],
)
def test_the_contract_names_the_outputs_that_the_model_gives(file, format, head, names):
    model, contract = prepared(file, format, head)
    assert [output.name for output in contract.outputs] == names
    assert len(outputs_of(model)) == len(names)
    assert contract.normalised == (format != "openvino")
    assert contract.head == head
    assert contract.strides == (8, 16, 32)
    boxes = outputs_of(model)[0][0, :4]
    assert (boxes.max() < 8) == contract.normalised, "shares of the image, or pixels"
    assert contract.unturned == ("obb" in str(file) and head == "int8")


def test_the_contract_names_the_target_of_the_request():
    model, facts = as_exported(YOLO(WEIGHTS).model, SIZE)
    request = resolve(PROFILES["tflite"], ExportOptions(target="nxp-imx8mp"))
    assert prepare(model, request, SIZE, facts).target == "nxp-imx8mp"
    assert prepared(WEIGHTS, "tflite", "int8")[1].target is None


def test_raw_outputs_are_one_for_each_branch_and_level():
    model, contract = prepared(WEIGHTS, "tflite", "raw")
    assert contract.outputs == tuple(Output(name, s) for name in ("boxes", "scores") for s in (8, 16, 32))
    assert [tuple(y.shape) for y in outputs_of(model)[:3]] == [(1, n, 64) for n in (400, 100, 25)]
    assert contract.raw.cells_first
    assert not prepared(WEIGHTS, "openvino", "raw")[1].raw.cells_first


@pytest.mark.parametrize(
    ("format", "outputs", "shapes"),
    [
        ("tflite", "merged", [(1, 525, 64), (1, 525, 4)]),
        ("openvino", "merged", [(1, 64, 525), (1, 4, 525)]),
        ("tflite", "grid", [(1, channels, side, side) for channels in (64, 4) for side in (20, 10, 5)]),
    ],
)
def test_raw_outputs_may_be_merged_or_maps(format, outputs, shapes):
    model, contract = prepared(WEIGHTS, format, "raw", outputs=outputs)
    assert contract.raw.arrangement == outputs
    assert [tuple(y.shape) for y in outputs_of(model)] == shapes, "maps are NHWC in the file alone"
    strides = [None] if outputs == "merged" else [8, 16, 32]
    assert contract.outputs == tuple(Output(name, s) for name in ("boxes", "scores") for s in strides)
    assert contract.strides == (8, 16, 32)


@pytest.mark.parametrize(
    ("kind", "names", "channels"),
    [("seg", ["detections", "prototypes"], 4 + 4 + 32), ("pose", ["detections"], None), ("obb", ["detections"], 9)],
)
def test_a_single_output_of_integers_has_all_but_prototypes_and_turned_boxes(kind, names, channels):
    model, contract = prepared(SMALL / f"shapes-{kind}.pt", "tflite", "int8", outputs="single")
    assert [output.name for output in contract.outputs] == names
    assert not contract.unturned
    outputs = outputs_of(model)
    assert len(outputs) == len(names)
    channels = channels or 4 + len(contract.names) + contract.kpt_shape[0] * contract.kpt_shape[1]
    assert outputs[0].shape == (1, channels, 525)


def test_the_reader_of_an_nms_free_file_chooses_unless_the_file_does():
    _, contract = prepared(SMALL / "shapes26.pt", "tflite", "int8", nms_free=True)
    assert contract.top_k == TopK(300, False)
    _, contract = prepared(SMALL / "shapes26.pt", "tflite", "float", nms_free=True)
    assert contract.top_k is None
    assert contract.is_final


def test_what_was_trained_is_said():
    _, contract = prepared(WEIGHTS, "tflite", "raw", Trained("tflite", "tensor"))
    assert (contract.ranges, contract.corrections) == ("trained", "none")
    assert contract.trained == Trained("tflite", "tensor")


def test_the_original_stays_as_it_is():
    model = YOLO(WEIGHTS).model
    before = copy.deepcopy(model.state_dict())
    exported, facts = as_exported(model, SIZE)
    assert exported.is_fused()
    assert not model.is_fused()
    assert facts["names"] == model.names
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
