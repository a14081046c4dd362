import errno
import os
from pathlib import Path

import pytest

from yolo_edgequant.errors import OutputError
from yolo_edgequant.files import atomic_write


def test_a_file_appears_only_when_it_is_atomic_write(tmp_path):
    path = tmp_path / "made" / "on" / "the" / "way" / "model.tflite"
    with atomic_write(path) as temporary:
        temporary.write_bytes(b"content")
        assert not path.exists()
        assert temporary.name == path.name
    assert path.read_bytes() == b"content"
    assert [p.name for p in path.parent.iterdir()] == ["model.tflite"]


def test_an_older_file_is_replaced(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_text("old")
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_an_older_folder_is_replaced_with_all_that_was_in_it(tmp_path):
    path = tmp_path / "saved_model"
    path.mkdir()
    (path / "stale").write_text("old")
    with atomic_write(path) as temporary:
        temporary.mkdir()
        (temporary / "fresh").write_text("new")
    assert [p.name for p in path.iterdir()] == ["fresh"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_replaces_a_folder(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    with atomic_write(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt()])
def test_an_exception_passes_and_leaves_nothing(tmp_path, error):
    def write():
        with atomic_write(tmp_path / "model.tflite") as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(type(error)) as caught:
        write()
    assert caught.value is error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_full_disk_is_one_line_and_leaves_the_old_result(tmp_path, kind):
    path = tmp_path / "model"
    if kind == "file":
        path.write_text("old")
    else:
        path.mkdir()
        (path / "part").write_text("old")

    def write():
        with atomic_write(path) as temporary:
            if kind == "file":
                temporary.write_text("half")
            else:
                temporary.mkdir()
                (temporary / "part").write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutputError) as caught:
        write()
    message = str(caught.value)
    assert str(path) in message
    assert os.strerror(errno.ENOSPC) in message
    assert "\n" not in message
    assert isinstance(caught.value.__cause__, OSError)
    assert (path if kind == "file" else path / "part").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_of_ours_from_an_inner_file_is_not_wrapped_again(tmp_path):
    def write():
        with atomic_write(tmp_path / "folder") as temporary:
            temporary.mkdir()
            with atomic_write(temporary / "inner") as inner:
                inner.write_text("half")
                raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutputError) as caught:
        write()
    assert "inner" in str(caught.value)
    assert not isinstance(caught.value.__cause__, OutputError)
    assert list(tmp_path.iterdir()) == []


def test_a_parent_that_is_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"cannot write '.*model'"), atomic_write(tmp_path / "file" / "model"):
        pytest.fail("the body must not run")
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_parent_without_permission_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match=os.strerror(errno.EACCES)), atomic_write(tmp_path / "model"):
            pytest.fail("the body must not run")
    finally:
        tmp_path.chmod(0o700)


def test_a_body_that_writes_nothing_leaves_the_old_folder(tmp_path):
    path = tmp_path / "saved_model"
    path.mkdir()
    with pytest.raises(OutputError, match=r"nothing was written to '.*saved_model'"), atomic_write(path):
        pass
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_replaces_a_file(tmp_path):
    path = tmp_path / "model"
    path.write_text("old")
    with atomic_write(path) as temporary:
        temporary.mkdir()
    assert path.is_dir()


def test_a_link_to_a_folder_is_replaced_and_the_folder_kept(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    path = tmp_path / "link"
    path.symlink_to(tmp_path / "elsewhere")
    with atomic_write(path) as temporary:
        temporary.mkdir()
    assert not path.is_symlink()
    assert path.is_dir()
    assert (tmp_path / "elsewhere").is_dir()


def test_a_missing_input_is_not_called_a_failure_to_write(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "model"):
        (tmp_path / "missing input").read_text()


@pytest.mark.parametrize("kind", ["file", "folder", "nothing"])
def test_the_old_result_is_put_back_if_the_new_one_cannot_take_its_place(tmp_path, monkeypatch, kind):
    path = tmp_path / "model"
    if kind == "file":
        path.write_text("old")
    elif kind == "folder":
        path.mkdir()
    rename = Path.rename

    def refuse(source, target):
        if source.is_file() and source.read_text() == "new":
            raise OSError(errno.EACCES, "Permission denied")
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OutputError, match=os.strerror(errno.EACCES)), atomic_write(path) as temporary:
        temporary.write_text("new")
    assert list(tmp_path.iterdir()) == ([] if kind == "nothing" else [path])
    assert path.is_dir() or kind == "nothing" or path.read_text() == "old"


@pytest.mark.parametrize("code", ["ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "ENOTDIR", "EFBIG", "EMFILE", "EIO"])
def test_only_a_refusal_to_write_is_called_one(tmp_path, code):
    error = OSError(getattr(errno, code), os.strerror(getattr(errno, code)))
    with pytest.raises(OSError, match=error.strerror) as caught, atomic_write(tmp_path / "model"):
        raise error
    assert isinstance(caught.value, OutputError) == (code not in {"EMFILE", "EIO"})
