"""Quantisation-aware models: their points are the file's, and what was trained is what is exported."""

import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from rich.console import Console
from ultralytics import YOLO

import yolo_edgequant
from yolo_edgequant.demo.train import WEIGHTS
from yolo_edgequant.errors import OptionError, RecipeError, UnsupportedModelError
from yolo_edgequant.training.tensor_matching import match, probe
from yolo_edgequant.training.fake_quantization import Trace
from yolo_edgequant.upstream import aware
from yolo_edgequant.patches.exporter import observed

SHAPE = (1, 3, 160, 160)

pytestmark = pytest.mark.slow


def trained(folder, data, target, granularity, **train):
    settings = {"epochs": 1, "batch": 8, "console": Console(file=io.StringIO()), **train}
    return yolo_edgequant.finetune(WEIGHTS, data, target=target, granularity=granularity, out=folder, **settings)


@pytest.fixture(scope="module")
def tensor(tmp_path_factory, shapes_data):
    """Trained for tflite with one scale of the weights a tensor."""
    return trained(tmp_path_factory.mktemp("tensor"), shapes_data, "tflite", "tensor")


@pytest.fixture(scope="module")
def channel(tmp_path_factory, shapes_data):
    """Trained for OpenVINO."""
    return trained(tmp_path_factory.mktemp("channel"), shapes_data, "openvino", None)


@pytest.fixture
def checkpoint(tensor, tmp_path):
    return Path(shutil.copy(tensor.checkpoint, tmp_path))


def levels(values, low, high):
    return (values - low) / ((high - low) / 255)


def test_each_operation_of_the_file_computes_what_was_trained(checkpoint):
    """Given the same inputs: over a whole model, ties that fall the other way add up."""
    with observed() as seen:
        file = YOLO(checkpoint).export(format="tflite", quantize=8, head="raw", imgsz=160)
    graph, content = seen["calibrated"].graph, seen["calibrated"].content
    model = YOLO(checkpoint).model.float()
    quantization = aware.quantization_of(model)
    _, prints = aware.trace(model, SHAPE)
    tensors = match(aware.prints_of(content, SHAPE), {number: prints[number] for number in quantization.points})
    interpreter = Interpreter(model_path=file, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    pixels = np.round(probe(SHAPE, channels_last=True) * 255)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], (pixels - 128).astype(np.int8))
    interpreter.invoke()
    details = {detail["name"]: detail for detail in interpreter.get_tensor_details()}
    found = {}
    for tensor, number in sorted(tensors.items(), reverse=True):  # what only moves a result comes behind it
        detail = details[graph.name(tensor)]
        step, zero = detail["quantization"]
        low, high = quantization.ranges()[number]
        assert step == pytest.approx((high - low) / 255, rel=1e-5)
        found[number] = torch.from_numpy((interpreter.get_tensor(detail["index"]).astype(np.float32) - zero) * step)
    assert set(found) == set(quantization.points)
    worst = {}

    class FromTheFile(Trace):
        """Compares each result with the file's, and goes on with the file's."""

        def _computed(self, name, result):
            number = len(self.calls)
            made = super()._computed(name, result)
            if number in found:
                low, high = quantization.ranges()[number]
                theirs = found[number].permute(0, 3, 1, 2) if result.dim() == 4 else found[number]
                worst[number, name] = float((levels(theirs, low, high) - levels(made, low, high)).abs().max())
                return theirs
            return made

    image = torch.from_numpy((pixels / 255).astype(np.float32)).permute(0, 3, 1, 2)
    model.train()
    quantization.eval()
    with torch.no_grad(), aware.unquantised(), FromTheFile(quantization):
        model(image)
    assert len(worst) == len(found)
    assert max(worst.values()) < 1.01, max(worst.items(), key=lambda item: item[1])


def accuracy_of(file, data):
    return YOLO(file, task="detect").val(data=data, imgsz=160, rect=False, plots=False, verbose=False).box.map


def test_a_file_is_as_accurate_as_the_model_that_was_trained(checkpoint, shapes_data):
    file = YOLO(checkpoint).export(format="litert", quantize=8, head="float", imgsz=160)
    assert accuracy_of(file, shapes_data) == pytest.approx(accuracy_of(checkpoint, shapes_data), abs=0.01)
    with zipfile.ZipFile(file) as archive:
        contract = json.loads(archive.read("metadata.json"))["edgequant"]
    assert contract["trained"] == {"target": "tflite", "granularity": "tensor"}
    assert contract["ranges"] == "trained"
    assert contract["granularity"] == "tensor"


@pytest.mark.parametrize(("format", "head"), [("tflite", "int8"), ("openvino", "int8"), ("saved_model", None)])
def test_head_3_in_integers_has_the_ranges_of_the_start(tensor, channel, shapes_data, tmp_path, format, head):
    done = channel if format == "openvino" else tensor
    file = YOLO(shutil.copy(done.checkpoint, tmp_path)).export(format=format, quantize=8, head=head, imgsz=160)
    file = next(Path(file).glob("*_full_integer_quant.tflite")) if format == "saved_model" else file
    assert accuracy_of(file, shapes_data) >= 0.93 * done.recovered


def test_an_openvino_file_has_the_trained_ranges(channel, shapes_data, tmp_path):
    import openvino as ov

    from yolo_edgequant.quantization import openvino

    checkpoint = Path(shutil.copy(channel.checkpoint, tmp_path))
    folder = YOLO(checkpoint).export(format="openvino", quantize=8, imgsz=160)
    # of 40 images: a box that falls the other way is worth up to a point
    assert accuracy_of(folder, shapes_data) == pytest.approx(accuracy_of(checkpoint, shapes_data), abs=0.02)
    ranges = openvino.activation_ranges(ov.Core().read_model(next(Path(folder).glob("*.xml"))))
    quantization = aware.quantization_of(YOLO(checkpoint).model.float())
    learned = np.array(sorted(quantization.ranges().values()))
    for name, found in ranges.items():
        if name not in {"x", "images"}:
            assert np.abs(learned - found).max(1).min() < 1e-4, name
    metadata = json.loads((Path(folder) / "metadata.json").read_text())["edgequant"]
    assert metadata["trained"]["target"] == "openvino"


def test_points_that_were_none_in_training_are_named(channel, checkpoint, tmp_path):
    other = Path(shutil.copy(channel.checkpoint, tmp_path / "other.pt"))
    settings = {"quantize": 8, "imgsz": 160}
    with pytest.raises(RecipeError, match="has no trained range"):
        YOLO(other).export(format="tflite", head="raw", **settings)
    with pytest.raises(OptionError, match="granularity='channel' but the model was trained with 'tensor'"):
        YOLO(checkpoint).export(format="tflite", head="raw", granularity="channel", **settings)
    for option in ({"ranges": "mse"}, {"corrections": "none"}, {"precision": "auto"}):
        with pytest.raises(OptionError, match="is not for a model that was trained quantisation-aware"):
            YOLO(checkpoint).export(format="tflite", head="raw", **settings, **option)


def test_other_formats_get_the_float_model(checkpoint):
    pytest.importorskip("onnx")
    import onnx

    file = YOLO(checkpoint).export(format="onnx", imgsz=160, simplify=False)
    kinds = {node.op_type for node in onnx.load(file).graph.node}
    assert "Conv" in kinds
    assert not kinds & {"QuantizeLinear", "Round", "Clip"}


def test_the_model_computes_with_its_rounding_until_it_is_exported(checkpoint):
    model = YOLO(checkpoint).model.float().eval()
    image = torch.from_numpy(probe(SHAPE))
    with torch.no_grad():
        rounded = model(image)[0]
        with aware.unquantised():
            plain = model(image)[0]
    assert 0 < (rounded - plain).abs().mean() < 5
    assert "trained quantisation-aware: for 'tflite', weights per tensor" in yolo_edgequant.describe(YOLO(checkpoint))


def test_an_interrupted_training_goes_on(tmp_path, shapes_data):
    class Stop(Exception):
        pass

    def interrupt(trainer):
        if trainer.epoch == 1:
            raise Stop

    model = YOLO(WEIGHTS)
    model.add_callback("on_train_epoch_start", interrupt)
    console = Console(file=io.StringIO())
    settings = {"target": "openvino", "out": tmp_path, "console": console}
    with pytest.raises(Stop):
        yolo_edgequant.finetune(model, shapes_data, epochs=2, batch=8, **settings)
    before = aware.quantization_of(YOLO(tmp_path / "weights/last.pt").model.student_model)
    done = yolo_edgequant.finetune(WEIGHTS, shapes_data, resume=True, **settings)
    assert done.epochs == 2
    after = aware.quantization_of(YOLO(done.checkpoint).model)
    assert after.points == before.points
    with pytest.raises(UnsupportedModelError, match="trained quantisation-aware"):
        yolo_edgequant.finetune(done.checkpoint, shapes_data, out=tmp_path / "again", target="tflite")


@pytest.mark.parametrize(
    ("weights", "activation", "target"),
    [
        ("yolo_edgequant/demo/shapes.pt", "relu", "tflite"),  # not equalised: its weights are those that are trained
        ("tests/weights/shapes26.pt", None, "tflite"),  # with attention, and two branches
        ("tests/weights/shapes26.pt", None, "openvino"),
        ("tests/weights/shapes-seg.pt", None, "tflite"),
        ("tests/weights/shapes-pose.pt", None, "openvino"),
    ],
)
def test_every_point_of_a_file_is_found_in_the_model(tmp_path, shapes_data, weights, activation, target):
    from yolo_edgequant.demo.dataset import data_set

    model = YOLO(Path(__file__).parents[2] / weights)
    data = shapes_data if model.task == "detect" else data_set(tmp_path, 16, 4, 160, seed=5, task=model.task)
    if activation is not None:
        yolo_edgequant.swap_activation(model, activation)
    made = aware.plan(model, str(data), target, "tensor" if target == "tflite" else "channel", 160)
    convolutions = [name for name, m in model.model.named_modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(made.layers) >= len([name for name in convolutions if "dfl" not in name])
    assert len(made.points) >= len(made.layers) / 2


def test_a_file_that_computes_what_training_does_not_is_refused(tmp_path):
    """Rotated boxes: the file has the angle of each level, training that of all levels at once."""
    from yolo_edgequant.demo.dataset import data_set

    model = YOLO(Path(__file__).parents[2] / "tests/weights/shapes-obb.pt")
    data = data_set(tmp_path, 16, 4, 160, seed=5, task="obb")
    with pytest.raises(UnsupportedModelError, match="cannot be trained quantisation-aware for 'tflite'"):
        aware.plan(model, str(data), "tflite", "tensor", 160)
