import subprocess

import pytest
from typer.testing import CliRunner

from yolo_edgequant import series
from yolo_edgequant.cli import app
from yolo_edgequant.errors import MissingToolError, OptionError


def test_the_series_is_written_to_a_folder_that_git_reads(tmp_path):
    done = CliRunner().invoke(app, ["patches", "--standalone", str(tmp_path / "new" / "folder")])
    assert done.exit_code == 0, done.output
    files = sorted((tmp_path / "new" / "folder" / series.SERIES).iterdir())
    assert [file.name[:4] for file in files] == [f"{number:04d}" for number in range(1, len(files) + 1)]
    assert len(list((tmp_path / "new" / "folder" / series.QUANTIZER_SERIES).iterdir())) == 1
    assert done.output.count("written: ") == len(files) + 1
    for file in files:
        said = subprocess.run(["git", "apply", "--numstat", str(file)], check=True, capture_output=True, text=True)
        assert "ultralytics/" in said.stdout


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OptionError, match="is a file: name a folder"):
        series.write(tmp_path / "file")


def test_an_installation_without_patches_says_so():
    with pytest.raises(MissingToolError, match=r"no patches for elsewhere in .*contrib.*install yolo-edgequant again"):
        series.folder_of("elsewhere")
