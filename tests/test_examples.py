import subprocess
import sys
from pathlib import Path

import pytest

from yolo_edgequant.processes import environment

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(example, tmp_path):
    run = subprocess.run(
        [sys.executable, str(example)], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-500:]
    assert "mAP50-95" in run.stdout
