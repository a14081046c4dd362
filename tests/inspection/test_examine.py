import subprocess
import sys
import time

import pytest

from yolo_edgequant.errors import MissingToolError, OptionError
from yolo_edgequant.inspection.examine import examine
from yolo_edgequant.processes import environment


def test_a_file_of_ours(files):
    inspection = examine(files["int8"], "coral-edgetpu")
    assert not inspection.is_broken
    assert (inspection.placed.partitions, inspection.measured, inspection.compiled) == (2, None, ())
    assert examine(files["raw"]).placed is None


def test_a_file_that_decodes_in_pixels(decoder):
    assert examine(decoder(0.05, 0.25, 0.25)).is_broken


def test_with_images(files, float_file, pictures):
    inspection = examine(files["int8"], images=pictures, count=1, float_model=float_file, beside=files["raw"])
    assert len(inspection.measured.images) == 1
    assert (inspection.reference, inspection.beside.path) == ("float.tflite", files["raw"])


def test_options_that_need_others(files, float_file):
    with pytest.raises(OptionError, match="give some with --images"):
        examine(files["int8"], float_model=float_file)
    with pytest.raises(OptionError, match="is not one of"):
        examine(files["int8"], "toaster")
    with pytest.raises(OptionError, match=r"no compiler for target nxp-imx8mp: give --target \(nxp-imx93, coral"):
        examine(files["int8"], "nxp-imx8mp", compiling=True)


def test_the_compiler_is_the_targets(files, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setitem(sys.modules, "yolo_edgequant.upstream.models", None)
    with pytest.raises(MissingToolError, match="vela"):
        examine(files["raw"], "nxp-imx93", compiling=True)
    with pytest.raises(MissingToolError, match="edgetpu_compiler"):
        examine(files["raw"], "coral-edgetpu", compiling=True)


def test_openvino_is_compiled_by_openvino(openvino_folder):
    assert examine(openvino_folder, compiling=True).compiled[0].compiler.startswith("OpenVINO")


def test_without_images_it_is_quick_and_needs_no_torch(files):
    code = (
        "import sys; from pathlib import Path; from yolo_edgequant.inspection.examine import examine; "
        "from yolo_edgequant.inspection import report; "
        f"report.as_dict(examine(Path({str(files['int8'])!r}), 'coral-edgetpu')); "
        "print([m for m in ('torch', 'ultralytics', 'tensorflow', 'openvino', 'cv2') if m in sys.modules])"
    )
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert time.perf_counter() - started < 5
