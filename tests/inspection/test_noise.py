import numpy as np
import pytest

from tests.graphs import Network
from yolo_edgequant.errors import InferenceError, UnsupportedModelError
from yolo_edgequant.inspection import noise
from yolo_edgequant.inspection.noise import aligned, measure
from yolo_edgequant.inspection.reading import open_model


def test_operators_of_the_same_place_are_recognized(files, float_file):
    model, reference = open_model(files["int8"]), open_model(float_file)
    pairs = aligned(model, reference)
    expected = {t for node in reference.nodes for t in node.outputs}
    assert expected - set(pairs.values()) == set()
    for one, other in pairs.items():
        assert model.tensors[one].shape == reference.tensors[other].shape
        name = reference.tensors[other].name
        assert name.partition(";")[0] in model.tensors[one].name, "the quantizer keeps names and adds to them"
    assert pairs[model.outputs[0]] == reference.outputs[0]


def test_slices_of_one_shape_are_told_apart(files, float_file):
    model, reference = open_model(files["int8"]), open_model(float_file)
    pairs = aligned(model, reference)
    slices = [node for node in model.nodes if node.kind == "SLICE"]
    assert len(slices) > 4
    for node in slices:
        other = reference.producer[pairs[node.outputs[0]]]
        begin, theirs = (m.tensors[n.inputs[1]].values for m, n in ((model, node), (reference, other)))
        assert begin.tolist() == theirs.tolist()


def test_a_slice_belongs_to_the_one_that_begins_where_it_does(tmp_path):
    """The float model has another slice of the same shape before it."""

    def sliced(name, *begins):
        network = Network(1, 8, 8, 3)
        parts = [
            network.add(
                "SLICE",
                (network.input, *(network.constant(np.array(v, np.int32), np.int32) for v in (begin, [1, 4, 8, 3]))),
                (1, 4, 8, 3),
            )
            for begin in begins
        ]
        whole = network.add("CONCATENATION", tuple(parts), (1, 4 * len(parts), 8, 3), axis=1)
        path = tmp_path / name
        path.write_bytes(network.content(whole))
        return open_model(path), parts

    model, (ours,) = sliced("one.tflite", [0, 4, 0, 0])
    reference, (_, second) = sliced("two.tflite", [0, 0, 0, 0], [0, 4, 0, 0])
    assert aligned(model, reference)[ours] == second


def test_noise_and_objects_of_real_files(files, float_file, pictures):
    result = measure(files["int8"], float_file, files["raw"], pictures, 2)
    assert result.images == ("0.png", "1.png")
    assert len(result.noise) > 100
    ratios = np.array([row.snr_db for row in result.noise])
    assert 5 < np.median(ratios) < 60
    assert all(0 <= row.kept <= 1 for row in result.noise)
    roles = [[view.role for view in views] for views in result.views]
    assert roles == [["float", "file", "beside"]] * 2
    assert all(view.picture[:2] == b"\xff\xd8" for views in result.views for view in views)
    assert any(view.count for views in result.views for view in views)


def test_a_file_beside_itself_has_no_noise(float_file, pictures):
    rows = measure(float_file, float_file, None, pictures, 1).noise
    assert rows
    assert min(row.snr_db for row in rows) > 100
    assert min(row.kept for row in rows) == pytest.approx(1)


def test_a_tensor_that_was_flattened_is_the_worst(files, float_file, pictures, tmp_path):
    """One scale a hundred times too large: from there on the signal is gone."""
    from yolo_edgequant.tflite import packing

    model = open_model(files["int8"])
    product = [node for node in model.nodes if node.kind == "MUL"][20].outputs[0]
    content = packing.unpack(files["int8"].read_bytes())
    grid = content.subgraphs[0].tensors[product].quantization
    grid.scale = [grid.scale[0] * 100]
    path = tmp_path / "flat.tflite"
    path.write_bytes(packing.pack(content))
    kept = {row.tensor: row.kept for row in measure(path, float_file, None, pictures, 1).noise}
    before = [node for node in model.nodes if node.kind == "MUL"][19].outputs[0]
    assert kept[before] > 0.8
    assert kept[product] < 0.3


def test_without_images_nothing_can_be_run(files, pictures):
    with pytest.raises(InferenceError, match="no image at"):
        measure(files["raw"], None, None, pictures / "none", 1)


def _crash(*_):
    import os

    os.abort()


def test_a_crash_is_one_error(files, pictures, monkeypatch):
    monkeypatch.setattr(noise, "_measure", _crash)
    with pytest.raises(UnsupportedModelError, match="the interpreter crashed on"):
        measure(files["raw"], None, None, pictures, 1)


def test_openvino_beside_itself(openvino_folder, pictures):
    result = measure(openvino_folder / "small.xml", openvino_folder / "small.xml", None, pictures, 1)
    assert min(row.snr_db for row in result.noise) > 100
    assert "only (1, 4 + classes, cells)" in result.troubles["file"]
