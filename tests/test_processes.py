import json
import os
import platform
import subprocess
import sys

import numpy as np
import psutil
import pytest

from yolo_edgequant import processes
from yolo_edgequant.processes import environment, return_memory, usable_threads


def test_a_child_in_another_folder_imports_what_this_process_does(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "only_here.py").write_text("VALUE = 7\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("here")  # a relative entry means this folder, wherever the child is
    child = subprocess.run(
        [sys.executable, "-c", "import only_here; print(only_here.VALUE)"],
        cwd=tmp_path / "elsewhere",
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (child.stdout, child.stderr) == ("7\n", "")


def test_the_childs_path_is_this_ones_in_order_and_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", "lib", "/opt/site"])
    assert environment()["PYTHONPATH"].split(os.pathsep) == [str(tmp_path), str(tmp_path / "lib"), "/opt/site"]


def test_variables_are_kept_added_and_replaced_in_a_copy(monkeypatch):
    monkeypatch.setenv("KEPT", "1")
    monkeypatch.setenv("REPLACED", "old")
    variables = environment(REPLACED="new", ADDED="2")
    assert (variables["KEPT"], variables["REPLACED"], variables["ADDED"]) == ("1", "new", "2")
    assert os.environ["REPLACED"] == "old"
    assert "ADDED" not in os.environ


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot bind a process to cores")
def test_threads_are_the_cores_that_the_process_may_use(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    code = """
import json, os
from yolo_edgequant.processes import usable_threads
before = usable_threads()
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
print(json.dumps([before, usable_threads(), os.cpu_count()]))
"""
    child = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    )
    before, bound, cores = json.loads(child.stdout)
    assert before == len(os.sched_getaffinity(0)) <= cores
    assert bound == 1


@pytest.mark.parametrize(("cores", "threads"), [(6, 6), (None, 1)])
def test_threads_where_a_process_cannot_be_bound(monkeypatch, cores, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delattr(processes.os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(processes.os, "cpu_count", lambda: cores)
    assert usable_threads() == threads


@pytest.mark.parametrize(("limit", "threads"), [("1", 1), ("3", 3), ("64", 6), ("", 6), ("0", 6), ("2,4", 6)])
def test_threads_are_no_more_than_the_environment_says(monkeypatch, limit, threads):
    monkeypatch.setattr(processes.os, "sched_getaffinity", lambda process: set(range(6)), raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", limit)
    assert usable_threads() == threads


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries return memory when they want to")
def test_freed_memory_goes_back_to_the_system():
    blocks = [np.ones(100_000, np.uint8) for _ in range(1000)]
    kept = blocks[-1]  # above the others in the heap, whose end is all that returns by itself
    del blocks
    before = psutil.Process().memory_info().rss
    return_memory()
    assert before - psutil.Process().memory_info().rss > 50e6
    assert kept.all()


def test_without_glibc_nothing_happens(monkeypatch):
    def none(name):
        raise OSError(name)

    monkeypatch.setattr(processes.ctypes, "CDLL", none)
    return_memory()
