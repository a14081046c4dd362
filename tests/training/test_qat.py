"""Quantization-aware models: their points are the file's, and what was trained is what is exported."""

import copy
import io
import json
import shutil
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from rich.console import Console
from torch import nn
from ultralytics import YOLO
from ultralytics.engine.model import Model

import yolo_edgequant
from yolo_edgequant import finetuning
from yolo_edgequant.contract import Trained, read
from yolo_edgequant.demo.train import WEIGHTS
from yolo_edgequant.errors import OptionError, RecipeError, UnsupportedModelError
from yolo_edgequant.options import Granularity
from yolo_edgequant.patches import litert, saved_model
from yolo_edgequant.pipeline import openvino
from yolo_edgequant.targets.formats import Format
from yolo_edgequant.training import qat
from yolo_edgequant.training.fake_quantization import Trace, quantization_of, without_fake_quantization
from yolo_edgequant.training.functions import WEIGHTED
from yolo_edgequant.training.tensor_matching import match, probe_image
from yolo_edgequant.training.tflite_points import fingerprints_of
from yolo_edgequant.training.tracing import fuse_batch_norm, trace, tracing

SHAPE = (1, 3, 160, 160)


@dataclass
class File:
    """Where an imagined file rounds: at some of the model's calls."""

    fingerprints: dict[str, np.ndarray]
    ranges: dict[str, tuple[float, float]]
    missing: str | None = None

    def check(self, matched: Any, fingerprints: Any) -> None:
        if self.missing:
            raise RecipeError(f"tensor '{self.missing}' has no range")

    def fixed(self, calls: Any, fingerprints: Any) -> dict[int, Any]:
        gates = {number: (0.0, 255 / 256) for number in fingerprints if calls[number].name == "sigmoid"}
        return dict.fromkeys([max(fingerprints)]) | gates

    def decoding(self, fingerprints: Any) -> list[tuple[str, float, float]]:
        return [("SOFTMAX", 0.0, 1.0)]


@pytest.fixture(scope="module")
def model():
    return YOLO(WEIGHTS)


@pytest.fixture(scope="module")
def file(model):
    """Rounds where the embedded detector computes, but for its first call."""
    _, fingerprints = trace(fuse_batch_norm(copy.deepcopy(model.model).float()), SHAPE)
    tensors = {f"t{number}": values for number, values in fingerprints.items() if number > 0}
    ranges = {name: (min(0.0, float(low)), max(0.1, float(high))) for name, (*_, low, high) in tensors.items()}
    return File(tensors, ranges)


def points_of(model, file):
    return qat.find_points(model.model, file, Format.TFLITE, Granularity.TENSOR, SHAPE)


def test_points_are_the_calls_whose_results_the_file_rounds(model, file):
    quantization = points_of(model, file)
    calls, _ = trace(fuse_batch_norm(copy.deepcopy(model.model).float()), SHAPE)
    assert set(quantization.points) == set(range(1, len(calls)))
    assert quantization.layers == {number for number, call in enumerate(calls) if call.name in WEIGHTED}
    assert (quantization.target, quantization.granularity) == ("tflite", "tensor")
    assert quantization.head == (("SOFTMAX", 0.0, 1.0),)
    ranges = quantization.ranges()
    low, high = file.ranges["t5"]
    assert ranges[5][1] - ranges[5][0] == pytest.approx(high - low)
    gates = [number for number, call in enumerate(calls) if call.name == "sigmoid"]
    assert {ranges[number] for number in gates} == {(0.0, 255 / 256)}
    learned = set(quantization.points.values()) - quantization.fixed
    assert {quantization.points[gates[0]], quantization.points[max(quantization.points)]} <= quantization.fixed
    assert len(learned) > len(gates)


def test_a_file_that_rounds_something_else_is_refused(model, file):
    other = File(file.fingerprints, file.ranges, missing="angle")
    with pytest.raises(UnsupportedModelError, match=r"for 'tflite', whose files compute .* tensor 'angle'") as raised:
        points_of(model, other)
    assert "\n" not in str(raised.value)


def test_a_model_that_trains_in_another_order_is_refused(model, file):
    other = copy.deepcopy(model)

    class Swaps(nn.Module):
        def forward(self, values):
            return values * 1 + 0 if self.training else values + 0 * 1

    other.model.model[1].act = Swaps()
    with pytest.raises(UnsupportedModelError, match="computes in another order in training than in inference"):
        points_of(other, file)


@pytest.fixture(scope="module")
def rounding(model, file):
    images = torch.from_numpy(np.concatenate([probe_image(SHAPE), probe_image(SHAPE)[..., ::-1].copy()]))
    return qat.with_fake_quantization(model, points_of(model, file), images)


def test_a_copy_rounds_and_its_biases_are_corrected(model, rounding):
    assert quantization_of(model.model) is None
    assert quantization_of(rounding.model) is not None
    assert rounding.model.model[0].conv.bias is not None, "its batch-norm is folded"
    fused = fuse_batch_norm(copy.deepcopy(model.model).float())
    biases = (module.model[0].conv.bias for module in (fused, rounding.model))
    assert 0 < (next(biases) - next(biases)).abs().max() < 0.1


def test_a_files_tensors_have_the_ranges_that_were_trained(file, rounding):
    ranges = quantization_of(rounding.model).ranges()
    _, fingerprints = trace(copy.deepcopy(rounding.model), SHAPE)
    tensors = {"seven": fingerprints[7], "none": fingerprints[7] + 1}
    assert qat.trained_ranges(rounding.model, SHAPE, tensors) == {"seven": ranges[7]}


@contextmanager
def refused(owner, *names):
    """Nothing inside may call these functions."""
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(mock.patch.object(owner, name, side_effect=AssertionError(f"{name} was called")))
        yield


@pytest.fixture(scope="module")
def tensor(tmp_path_factory, shapes_data):
    """Trained for tflite with one scale of the weights a tensor, without the public export."""
    settings = {"epochs": 1, "batch": 8, "console": Console(file=io.StringIO())}
    out = tmp_path_factory.mktemp("tensor")
    with refused(Model, "export"):
        return yolo_edgequant.finetune(WEIGHTS, shapes_data, target="tflite", granularity="tensor", out=out, **settings)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory, shapes_data):
    """Trained for OpenVINO, interrupted in its second epoch and resumed; and the points at the interruption.

    Without the public export, and resumed without a conversion or a calibration.
    """

    class Stop(Exception):
        pass

    def interrupt(trainer):
        if trainer.epoch == 1:
            raise Stop

    folder, model = tmp_path_factory.mktemp("channel"), YOLO(WEIGHTS)
    model.add_callback("on_train_epoch_start", interrupt)
    settings = {"target": "openvino", "out": folder, "console": Console(file=io.StringIO())}
    with pytest.raises(Stop), refused(Model, "export"):
        yolo_edgequant.finetune(model, shapes_data, epochs=2, batch=8, **settings)
    before = quantization_of(YOLO(folder / "weights/last.pt").model.student_model)
    with refused(finetuning, "_prepared", "_points"), refused(openvino, "convert", "calibrate"):
        return yolo_edgequant.finetune(WEIGHTS, shapes_data, resume=True, **settings), before


@pytest.fixture(scope="module")
def channel(interrupted):
    """Trained for OpenVINO."""
    return interrupted[0]


@pytest.fixture
def checkpoint(tensor, tmp_path):
    return Path(shutil.copy(tensor.checkpoint, tmp_path))


def levels(values, low, high):
    return (values - low) / ((high - low) / 255)


@pytest.mark.export
def test_each_operation_of_the_file_computes_what_was_trained(checkpoint, monkeypatch):
    """Given the same inputs: over a whole model, ties that fall the other way add up."""
    graphs = []
    trained_graph = litert.trained_graph

    def kept(*arguments):
        graphs.append(trained_graph(*arguments))
        return graphs[-1]

    monkeypatch.setattr(litert, "trained_graph", kept)
    file = YOLO(checkpoint).export(format="tflite", quantize=8, head="raw", imgsz=160)
    graph = graphs[0].graph
    model = YOLO(checkpoint).model.float()
    quantization = quantization_of(model)
    _, fingerprints = trace(model, SHAPE)
    tensors = match(fingerprints_of(graph, SHAPE), {number: fingerprints[number] for number in quantization.points})
    interpreter = Interpreter(model_path=file, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    pixels = np.round(probe_image(SHAPE, channels_last=True) * 255)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], (pixels - 128).astype(np.int8))
    interpreter.invoke()
    details = {detail["name"]: detail for detail in interpreter.get_tensor_details()}
    for tensor, output in zip(graph.outputs, interpreter.get_output_details(), strict=True):
        details[graph.name(tensor)] = output  # the file calls it by what it holds
    results = {}
    for tensor, number in sorted(tensors.items(), reverse=True):  # what only moves a result comes behind it
        detail = details[graph.name(tensor)]
        step, zero = detail["quantization"]
        low, high = quantization.ranges()[number]
        assert step == pytest.approx((high - low) / 255, rel=1e-5)
        results[number] = torch.from_numpy((interpreter.get_tensor(detail["index"]).astype(np.float32) - zero) * step)
    assert set(results) == set(quantization.points)
    worst = {}

    class FromTheFile(Trace):
        """Compares each result with the file's, and goes on with the file's."""

        def _computed(self, name, result):
            number = len(self.calls)
            ours = super()._computed(name, result)
            if number in results:
                low, high = quantization.ranges()[number]
                theirs = results[number].permute(0, 3, 1, 2) if result.dim() == 4 else results[number]
                worst[number, name] = float((levels(theirs, low, high) - levels(ours, low, high)).abs().max())
                return theirs
            return ours

    image = torch.from_numpy((pixels / 255).astype(np.float32)).permute(0, 3, 1, 2)
    plain = without_fake_quantization(model).train()
    quantization.eval()
    with torch.no_grad(), tracing(plain, FromTheFile(quantization)):
        plain(image)
    assert len(worst) == len(results)
    assert max(worst.values()) < 1.01, max(worst.items(), key=lambda item: item[1])


def accuracy_of(file, data):
    return YOLO(file, task="detect").val(data=data, imgsz=160, rect=False, plots=False, verbose=False).box.map


@pytest.mark.export
def test_a_file_is_as_accurate_as_the_model_that_was_trained(checkpoint, shapes_data):
    file = Path(YOLO(checkpoint).export(format="litert", quantize=8, head="float", imgsz=160))
    assert accuracy_of(file, shapes_data) == pytest.approx(accuracy_of(checkpoint, shapes_data), abs=0.01)
    contract = read(file)
    assert contract.trained == Trained("tflite", "tensor")
    assert (contract.ranges, contract.corrections) == ("trained", "none")
    assert contract.granularity == "tensor"


@pytest.mark.export
@pytest.mark.parametrize(("format", "head"), [("tflite", "int8"), ("openvino", "int8"), ("saved_model", None)])
def test_box_decoding_in_integers_has_the_ranges_of_the_start(
    tensor, channel, shapes_data, tmp_path, monkeypatch, format, head
):
    monkeypatch.setattr(saved_model, "to_saved_model", lambda onnx, folder: folder.mkdir())  # a file is looked at
    done = channel if format == "openvino" else tensor
    file = YOLO(shutil.copy(done.checkpoint, tmp_path)).export(format=format, quantize=8, head=head, imgsz=160)
    file = next(Path(file).glob("*_full_integer_quant.tflite")) if format == "saved_model" else file
    assert accuracy_of(file, shapes_data) >= 0.93 * done.recovered


@pytest.mark.export
def test_an_openvino_file_has_the_trained_ranges(channel, shapes_data, tmp_path):
    import openvino as ov

    from yolo_edgequant.openvino.quantizer import activation_ranges

    checkpoint = Path(shutil.copy(channel.checkpoint, tmp_path))
    folder = Path(YOLO(checkpoint).export(format="openvino", quantize=8, imgsz=160))
    # of 40 images: a box that falls the other way is worth up to a point
    assert accuracy_of(folder, shapes_data) == pytest.approx(accuracy_of(checkpoint, shapes_data), abs=0.02)
    ranges = activation_ranges(ov.Core().read_model(next(folder.glob("*.xml"))))
    learned = np.array(sorted(quantization_of(YOLO(checkpoint).model.float()).ranges().values()))
    for name, range_ in ranges.items():
        if name not in {"x", "images"}:
            assert np.abs(learned - range_).max(1).min() < 1e-4, name
    assert read(folder).trained.target == "openvino"


@pytest.mark.export
def test_points_that_were_none_in_training_are_named(channel, checkpoint, tmp_path):
    other = Path(shutil.copy(channel.checkpoint, tmp_path / "other.pt"))
    settings = {"quantize": 8, "imgsz": 160}
    with pytest.raises(RecipeError, match="has no trained range"):
        YOLO(other).export(format="tflite", head="raw", **settings)
    with pytest.raises(OptionError, match="granularity='channel' but the model was trained with 'tensor'"):
        YOLO(checkpoint).export(format="tflite", head="raw", granularity="channel", **settings)


@pytest.mark.export
def test_other_formats_get_the_float_model(checkpoint):
    pytest.importorskip("onnx")
    import onnx

    file = YOLO(checkpoint).export(format="onnx", imgsz=160, simplify=False)
    kinds = {node.op_type for node in onnx.load(file).graph.node}
    assert "Conv" in kinds
    assert not kinds & {"QuantizeLinear", "Round", "Clip"}


@pytest.mark.export
def test_the_model_computes_with_its_rounding_until_it_is_exported(checkpoint):
    model = YOLO(checkpoint).model.float().eval()
    image = torch.from_numpy(probe_image(SHAPE))
    with torch.no_grad():
        rounded, plain = (part(image)[0] for part in (model, without_fake_quantization(model)))
    assert 0 < (rounded - plain).abs().mean() < 5
    assert "trained quantization-aware: for 'tflite', weights per tensor" in yolo_edgequant.describe(YOLO(checkpoint))


@pytest.mark.export
def test_an_interrupted_training_goes_on_with_its_points(interrupted, shapes_data, tmp_path):
    done, before = interrupted
    assert done.epochs == 2
    started = json.loads((done.checkpoint.parents[1] / "started.json").read_text())
    assert started == {name: getattr(done, name) for name in started}
    assert started.keys() == {"activation", "target", "granularity", "teacher", "changed", "prepared"}
    after = quantization_of(YOLO(done.checkpoint).model)
    assert after.points == before.points
    assert after.target == "openvino"
    with pytest.raises(UnsupportedModelError, match="trained quantization-aware"):
        yolo_edgequant.finetune(done.checkpoint, shapes_data, out=tmp_path / "again", target="tflite")
