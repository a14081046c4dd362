import re
import subprocess
import sys
from pathlib import Path

import pytest

from yolo_edgequant.processes import environment

pytestmark = pytest.mark.export
EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(example, tmp_path):
    run = subprocess.run(
        [sys.executable, str(example)], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-500:]
    accuracies = [float(value) for value in re.findall(r"^\S+: mAP50-95 (\S+)$", run.stdout, re.MULTILINE)]
    assert accuracies
    assert min(accuracies) > 0.7
