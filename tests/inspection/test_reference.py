import pytest

from yolo_edgequant.errors import InferenceError
from yolo_edgequant.inspection.reading import open_model
from yolo_edgequant.inspection.reference import reference


def test_a_file_is_taken_as_it_is(files, float_file, tmp_path):
    assert reference(float_file, open_model(files["int8"]), tmp_path) == float_file
    with pytest.raises(InferenceError, match=r"float model .* not found"):
        reference(tmp_path / "none.pt", open_model(files["int8"]), tmp_path)


@pytest.mark.export
def test_a_checkpoint_is_exported_in_float_elsewhere(shapes_model, openvino_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    before = set(shapes_model.parent.iterdir())
    path = reference(shapes_model, open_model(openvino_folder), folder)
    assert path.parent == folder
    assert set(shapes_model.parent.iterdir()) == before
    model = open_model(path)
    assert (model.family, model.side) == ("openvino", 32)
    assert not any(tensor.levels for tensor in model.tensors)
