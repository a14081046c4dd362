import pytest

from yolo_edgequant.errors import InferenceError, UnsupportedModelError
from yolo_edgequant.inspection.reading import open_model


def test_a_file_goes_by_what_it_is(files, openvino_folder):
    assert open_model(files["raw"]).family == "tflite"
    assert open_model(openvino_folder).family == "openvino"
    assert open_model(openvino_folder / "small.xml").path == open_model(openvino_folder).path


def test_what_is_not_there(tmp_path):
    with pytest.raises(InferenceError, match="not found"):
        open_model(tmp_path / "none.tflite")
    with pytest.raises(UnsupportedModelError, match=r"holds 0 \.xml files"):
        open_model(tmp_path)
