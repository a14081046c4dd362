import sys

import pytest

from yolo_edgequant.errors import CompilerError, MissingToolError
from yolo_edgequant.inspection import edgetpu
from yolo_edgequant.inspection.compiled import Fallback

LOG = """Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 1052 ms.

Input model: raw.tflite
Input size: 3.07MiB
Output model: raw_edgetpu.tflite
Output size: 3.40MiB
On-chip memory used for caching model parameters: 3.38MiB
On-chip memory remaining for caching model parameters: 4.25MiB
Off-chip memory used for streaming uncached model parameters: 0.00B
Number of Edge TPU subgraphs: 1
Total number of operations: 250
Operation log: raw_edgetpu.log

Model successfully compiled but not all operations are supported by the Edge TPU.
Number of operations that will run on Edge TPU: 236
Number of operations that will run on CPU: 14

Operator                       Count      Status

CONV_2D                        64         Mapped to Edge TPU
LOGISTIC                       58         Mapped to Edge TPU
MUL                            57         Mapped to Edge TPU
CONCATENATION                  17         Mapped to Edge TPU
RESHAPE                        40         Mapped to Edge TPU
SOFTMAX                        1          Tensor has unsupported rank (up to 3 innermost dimensions mapped)
RESHAPE                        12         More than one subgraph is not supported
TRANSPOSE              1      Operation is otherwise supported, but not mapped due to some unspecified limitation
Compilation child process completed within timeout period.
Compilation succeeded!
"""

FAKE = f"""#!{sys.executable}
import sys, pathlib
arguments = sys.argv[1:]
folder = pathlib.Path(arguments[arguments.index("--out_dir") + 1])
source = pathlib.Path(arguments[-1])
(folder / (source.stem + "_edgetpu.tflite")).write_bytes(b"compiled")
print({LOG!r})
"""


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """A program of that name on PATH, which prints and writes what the real one does."""
    program = tmp_path / "bin" / "edgetpu_compiler"
    program.parent.mkdir()
    program.write_text(FAKE)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    return program


def test_the_log_becomes_the_table():
    result = edgetpu.parse(LOG)
    assert result.compiler == "edgetpu_compiler 16.0.384591198"
    assert (result.accelerator, result.cpu, result.subgraphs) == (236, 14, 1)
    assert result.fallbacks == (
        Fallback("SOFTMAX", "Tensor has unsupported rank (up to 3 innermost dimensions mapped)", 1),
        Fallback("RESHAPE", "More than one subgraph is not supported", 12),
        Fallback("TRANSPOSE", "Operation is otherwise supported, but not mapped due to some unspecified limitation", 1),
    )
    assert result.memory == {
        "on-chip used for caching": round(3.38 * 2**20),
        "on-chip remaining for caching": round(4.25 * 2**20),
        "off-chip used for streaming uncached": 0,
    }


def test_the_program_is_run_and_its_file_kept(compiler, files, tmp_path):
    result = edgetpu.compile_file(files["raw"], tmp_path / "kept")
    assert result.file == tmp_path / "kept" / "raw_edgetpu.tflite"
    assert result.file.read_bytes() == b"compiled"
    assert result.share == 236 / 250
    assert edgetpu.compile_file(files["raw"]).file is None


def test_a_compilation_that_failed(compiler, files):
    with pytest.raises(CompilerError, match="Compilation failed due to large activation tensors in model"):
        edgetpu.parse("Edge TPU Compiler version 16.0\nCompilation failed due to large activation tensors in model.\n")
    compiler.write_text(f"#!{sys.executable}\nraise SystemExit('Error: large activation tensors in model')\n")
    with pytest.raises(CompilerError, match="status 1: Error: large activation"):
        edgetpu.compile_file(files["raw"])


def test_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "yolo_edgequant.upstream.models", None)
    with pytest.raises(MissingToolError, match=r"coral\.ai"):
        edgetpu.find()
