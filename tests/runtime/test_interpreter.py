import numpy as np
import pytest

from tests import fuzz, graphs
from yolo_edgequant import contract
from yolo_edgequant.errors import ContractError, InferenceError, MissingToolError, UnsupportedModelError
from yolo_edgequant.runtime import interpreter
from yolo_edgequant.runtime.interpreter import OpenVINO, Tensor, TFLite


def details(dtype, scale, zero_point):
    return {"shape": np.array([1, 2]), "dtype": dtype, "quantization": (scale, zero_point)}


def test_stored_numbers_are_rounded_and_clipped():
    tensor = Tensor.of(details(np.int8, 1 / 255, -128))
    pixels = np.arange(256)
    values = (pixels / 255).astype(np.float32)
    assert (tensor.stored(values) == pixels - 128).all()
    assert tensor.stored(np.array([-3.0, 9.0])).tolist() == [-128, 127]
    unsigned = Tensor.of(details(np.uint8, 1 / 255, 0))
    assert (unsigned.stored(values) == pixels).all()
    np.testing.assert_allclose(unsigned.values(pixels.astype(np.uint8)), values, atol=1e-6)
    np.testing.assert_allclose(tensor.table(), values, atol=1e-6)
    assert Tensor.of(details(np.float32, 0.0, 0)).stored(values).dtype == np.float32


def doubled(*shape, inputs=1):
    """A ``.tflite`` file that adds its input, or two of them."""
    network = graphs.Network(*shape)
    other = network.input
    if inputs == 2:
        other = network._tensor(shape, b"second")
        network._graph.inputs.append(other)
    return network.content(network.add("ADD", (network.input, other), shape))


@pytest.mark.parametrize("as_file", [True, False])
def test_a_tflite_model_from_a_file_or_its_bytes(tmp_path, as_file):
    model = doubled(1, 4, 4, 3)
    if as_file:
        (tmp_path / "model.tflite").write_bytes(model)
        model = tmp_path / "model.tflite"
    runs = TFLite(model, 1)
    assert (runs.input.shape, [tensor.shape for tensor in runs.outputs]) == ((1, 4, 4, 3), [(1, 4, 4, 3)])
    image = np.random.default_rng(0).random((1, 4, 4, 3), np.float32)
    (output,) = runs.run(image)
    np.testing.assert_array_equal(output, 2 * image)
    runs.bound(3 * image)()
    (output,) = [runs._interpreter.get_tensor(index) for index in runs._targets]
    np.testing.assert_allclose(output, 6 * image, rtol=1e-6)


def test_an_openvino_model(tmp_path):
    pytest.importorskip("openvino")
    runs = OpenVINO(fuzz.small_openvino(tmp_path), 1)
    assert runs.input == Tensor((1, 3, 64, 64), np.dtype(np.float32))
    assert [tensor.shape for tensor in runs.outputs] == [(1, 4, 4), (1, 4, 4)]
    image = np.random.default_rng(0).random((1, 3, 64, 64), np.float32)
    first = [output.copy() for output in runs.run(image)]
    assert not np.array_equal(first[0], first[1])
    np.testing.assert_allclose(runs.run(2 * image)[0], 2 * first[0], rtol=1e-2, atol=1e-3)
    assert callable(runs.bound(image))
    runs.bound(image)()


def test_the_latency_is_a_median(monkeypatch):
    clock = iter(np.cumsum([0.0, *(s for i in range(interpreter._RUNS) for s in (1.0 if i == 3 else 0.002, 0.5))]))
    monkeypatch.setattr(interpreter.time, "perf_counter", lambda: next(clock))
    calls = []
    assert interpreter.latency(lambda: calls.append(1)) == pytest.approx(2.0)
    assert len(calls) == interpreter._RUNS


def test_models_that_cannot_be_run(tmp_path):
    with pytest.raises(UnsupportedModelError, match="the model cannot be run: ") as raised:
        TFLite(b"TFL3 is no model", 1)
    assert "\n" not in str(raised.value)
    (tmp_path / "broken.tflite").write_bytes(doubled(1, 4)[:40])
    with pytest.raises(UnsupportedModelError, match=r"broken\.tflite' cannot be run"):
        TFLite(tmp_path / "broken.tflite", 1)
    with pytest.raises(UnsupportedModelError, match="has 2 inputs, not 1"):
        TFLite(doubled(1, 4, inputs=2), 1)


def test_folders_that_cannot_be_run(tmp_path):
    ov = pytest.importorskip("openvino")
    from openvino import opset13 as ops

    with pytest.raises(UnsupportedModelError, match=r"holds 0 \.xml files"):
        OpenVINO(tmp_path, 1)
    (tmp_path / "model.xml").write_text("<net")
    with pytest.raises(UnsupportedModelError, match="cannot be run") as raised:
        OpenVINO(tmp_path, 1)
    assert "\n" not in str(raised.value)
    image = ops.parameter([-1, 3, -1, -1], np.float32)
    ov.save_model(ov.Model([ops.result(ops.relu(image))], [image]), tmp_path / "model.xml")
    with pytest.raises(UnsupportedModelError, match="has dynamic shapes"):
        OpenVINO(tmp_path, 1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # ai_edge_litert's, of no delegate
def test_what_is_not_installed_is_named(tmp_path, monkeypatch):
    with pytest.raises(MissingToolError, match=r"the delegate 'libvx_delegate\.so' could not be loaded"):
        TFLite(doubled(1, 4), 1, "vx")
    with pytest.raises(MissingToolError, match=r"the delegate '/nowhere/lib\.so' could not be loaded"):
        TFLite(doubled(1, 4), 1, "/nowhere/lib.so")
    monkeypatch.setattr(interpreter, "_first_installed", lambda names: None)
    with pytest.raises(MissingToolError, match=r"pip install 'yolo-edgequant\[runtime\]'"):
        TFLite(doubled(1, 4), 1)
    with pytest.raises(MissingToolError, match="pip install openvino"):
        OpenVINO(tmp_path, 1)


def test_the_first_interpreter_that_is_installed_is_taken(monkeypatch):
    import sys
    import types

    other = types.ModuleType("tflite_runtime.interpreter")
    monkeypatch.setitem(sys.modules, "tflite_runtime", types.ModuleType("tflite_runtime"))
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", other)
    assert interpreter._first_installed(interpreter._TFLITE) is not other
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    assert interpreter._first_installed(interpreter._TFLITE) is other


def test_a_file_is_opened_with_its_contract(tmp_path, detector):
    path, facts = tmp_path / "model.tflite", graphs.contract("float", io="float")
    path.write_bytes(detector)
    with pytest.raises(InferenceError, match=r"model '.*missing\.tflite' not found \(looked in "):
        interpreter.load(tmp_path / "missing.tflite", 1, None)
    with pytest.raises(ContractError, match="not from 'import yolo_edgequant'"):
        interpreter.load(path, 1, None)
    assert interpreter.open_file(path, 1).input.shape == (1, 160, 160, 3), "whoever made it"
    contract.append(path, facts, graphs.upstream(facts))
    runs, read = interpreter.load(path, 1, None)
    assert isinstance(runs, TFLite)
    assert read.outputs == facts.outputs
    with pytest.raises(InferenceError, match=r"delegate='vx' is for \.tflite files"):
        interpreter.open_file(tmp_path, 1, "vx")
