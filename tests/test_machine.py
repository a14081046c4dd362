import importlib.metadata
import subprocess

import pytest

from yolo_edgequant import __version__, machine


@pytest.mark.parametrize(
    ("lines", "features"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2 amx_int8 avx512_vnni\n", ("avx2", "avx512_vnni", "amx_int8")),
        ("processor\t: 0\nFeatures\t: fp asimd asimddp\n", ("asimddp",)),
        ("flags\t: avx2x\n", ()),
        ("model\t: 7\n", ()),
        (None, ()),
    ],
)
def test_the_cpus_features(tmp_path, monkeypatch, lines, features):
    if lines is not None:
        (tmp_path / "cpuinfo").write_text(lines)
    monkeypatch.setattr(machine, "_CPU", tmp_path / "cpuinfo")
    assert machine.cpu_features() == features


def test_facts_name_the_cpu_and_what_is_installed(tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: A CPU\nflags\t: avx2\n")
    monkeypatch.setattr(machine, "_CPU", tmp_path / "cpuinfo")
    monkeypatch.setattr(machine, "_PACKAGES", ("numpy", "no-such-package"))
    facts = machine.facts()
    assert (facts.version, facts.cpu, facts.features) == (__version__, "A CPU", ("avx2",))
    assert facts.packages == {"numpy": importlib.metadata.version("numpy")}
    assert facts.cores >= 1
    assert facts.load >= 0
    assert len(facts.date.split("-")) == 3


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with one commit and the package's folder in it, which stands for ours; runs git in it."""

    def git(*arguments):
        identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    (tmp_path / "yolo_edgequant").mkdir()
    (tmp_path / "yolo_edgequant" / "file.py").write_text("1")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    monkeypatch.setattr(machine, "_CHECKOUT", tmp_path)
    return git


def test_the_commit_is_that_of_the_checkout_and_says_if_the_code_differs(checkout, tmp_path):
    commit = checkout("rev-parse", "--short=7", "HEAD")
    (tmp_path / "page.md").write_text("no code")
    assert machine.facts().commit == commit
    (tmp_path / "yolo_edgequant" / "file.py").write_text("2")
    assert machine.facts().commit == f"{commit}-dirty"


def test_there_is_no_commit_where_the_package_is_only_inside_of_a_checkout(checkout, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_CHECKOUT", tmp_path / "yolo_edgequant")
    assert machine.facts().commit is None
