import pytest

from yolo_edgequant.errors import ConversionError
from yolo_edgequant.tflite import saved_model

pytestmark = pytest.mark.export


def test_a_file_that_onnx2tf_cannot_read_is_one_line(tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(ConversionError, match="onnx2tf could not convert") as raised:
        saved_model.to_saved_model(broken, tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()
