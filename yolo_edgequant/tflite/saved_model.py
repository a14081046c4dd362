"""ONNX to a float TensorFlow SavedModel by onnx2tf, in a process of its own.

onnx2tf fetches a sample of images to the working directory unless a file of that name lies there. So the conversion
runs in a temporary folder with a stand-in, and in a child process, which also returns TensorFlow's memory.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from ..errors import ConversionError
from ..processes import environment

_SAMPLE = "calibration_image_sample_data_20x128x128x3_float32.npy"


def to_saved_model(onnx_file: Path, folder: Path) -> None:
    """Convert a float ONNX model.

    Args:
        onnx_file: the model.
        folder: is made, and receives ``saved_model.pb``, ``variables`` and ``assets``.

    Raises:
        ConversionError: onnx2tf failed; the message ends with its last line.
    """
    with tempfile.TemporaryDirectory() as work:
        np.save(Path(work) / _SAMPLE, np.random.default_rng(0).random((20, 128, 128, 3), np.float32))
        target = Path(work) / "saved_model"
        child = subprocess.run(
            [sys.executable, "-m", __spec__.name, str(onnx_file.resolve()), str(target)],
            cwd=work,
            env=environment(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES=""),
            capture_output=True,
            text=True,
        )
        if child.returncode or not (target / "saved_model.pb").is_file():
            lines = (child.stderr + child.stdout).strip().splitlines() or ["no output"]
            raise ConversionError(f"onnx2tf could not convert the model (exit status {child.returncode}): {lines[-1]}")
        for file in target.glob("*.tflite"):
            file.unlink()  # onnx2tf's own keep pixel boxes, which no reader of .tflite files expects
        shutil.copytree(target, folder)


def _convert(onnx_file: str, folder: str) -> None:
    """The child's work."""
    import onnx.helper

    if not hasattr(onnx.helper, "float32_to_bfloat16"):
        # onnx_graphsurgeon names this function, which onnx removed; no float32 model reaches it
        onnx.helper.float32_to_bfloat16 = None
    import onnx2tf

    onnx2tf.convert(
        input_onnx_file_path=onnx_file,
        output_folder_path=folder,
        not_use_onnxsim=True,  # the exporter has simplified it
        verbosity="error",
        output_signaturedefs=True,
        enable_batchmatmul_unfold=True,
    )


if __name__ == "__main__":
    _convert(*sys.argv[1:])
