import sys

import pytest

from yolo_edgequant.errors import CompilerError
from yolo_edgequant.inspection.compiled import Compiled, run


def test_what_a_compiler_prints_on_both_channels():
    text = run([sys.executable, "-c", "import sys; print('out'); print('err', file=sys.stderr)"], "compiler")
    assert sorted(text.split()) == ["err", "out"]


def test_a_failure_names_its_error():
    code = "import sys; print('one'); print('Error: too large'); print('last'); sys.exit(3)"
    with pytest.raises(CompilerError, match=r"compiler failed with status 3: Error: too large$"):
        run([sys.executable, "-c", code], "compiler")
    with pytest.raises(CompilerError, match="it said nothing"):
        run([sys.executable, "-c", "raise SystemExit(1)"], "compiler")


def test_a_program_that_cannot_be_run(tmp_path):
    with pytest.raises(CompilerError, match="cannot be run"):
        run([tmp_path], "compiler")


def test_the_share_on_the_accelerator():
    assert Compiled("c", "d", 3, 1).share == 0.75
    assert Compiled("c", "d", 0, 0).share == 0
