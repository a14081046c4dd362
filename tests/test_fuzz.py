"""A few rounds of the fuzzer with a fixed seed, and the fuzzer itself."""

import copy
import json
import random
import sys
import time
import types
from collections import Counter
from importlib.util import find_spec

import pytest

from tests import fuzz, graphs
from yolo_edgequant.errors import ContractError, EdgeQuantError

SEED = 4


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return [fuzz.Sample.of(path) for path in fuzz.small_tflite(tmp_path_factory.mktemp("files"))]


def failures(rounds):
    return [f"{r.sample}: {r.done}: {r.answer['text']}" for r in rounds if r.answer["outcome"] == "finding"]


def test_damaged_files_work_or_are_refused_in_one_line(files):
    rounds = list(fuzz.fuzz(files, SEED, 300))
    assert failures(rounds) == []
    outcomes = Counter(r.answer["outcome"] for r in rounds)
    assert outcomes["works"] > 30, "damage that does not matter"
    assert outcomes["refused"] > 150
    assert {r.kind for r in rounds} == fuzz.DAMAGE.keys() - fuzz._FOR_FOLDERS
    names = {r.answer["error"] for r in rounds if r.answer["outcome"] == "refused"}
    assert names == {"ContractError", "UnsupportedModelError"}


@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
def test_damaged_openvino_folders_too(tmp_path):
    rounds = list(fuzz.fuzz([fuzz.Sample.of(fuzz.small_openvino(tmp_path))], SEED, 60))
    assert failures(rounds) == []
    assert {r.answer["outcome"] for r in rounds} == {"works", "refused"}
    assert len({r.kind for r in rounds}) > 8


def test_every_key_was_deleted_and_given_every_value(files):
    """Chance takes all of them in the end; here each in turn, through what reads metadata."""
    from yolo_edgequant.contract import Contract

    count = 0
    for sample in files:
        metadata = fuzz._metadata(sample)
        for path in fuzz._paths(metadata):
            for value in (..., *fuzz.VALUES):
                damaged = copy.deepcopy(metadata)
                place = fuzz._at(damaged, path[:-1])
                if value is ...:
                    del place[path[-1]]
                else:
                    place[path[-1]] = copy.deepcopy(value)
                answer = fuzz.verdict(lambda damaged=damaged: Contract.of(damaged))
                assert answer["outcome"] != "finding", (path, value, answer["text"])
                count += 1
    assert count > 1500


def test_ultralytics_side_raises_nothing_else(files):
    """What upstream converts unseen: stride, batch, imgsz, names as texts and the like."""
    from ultralytics.nn.backends.base import BaseBackend

    from yolo_edgequant.patches import backends

    original = getattr(BaseBackend.apply_metadata, "__wrapped__", BaseBackend.apply_metadata)

    def load(metadata):
        backend = types.SimpleNamespace(dynamic=False)
        backends.apply_metadata(original, backend, metadata)
        return backend

    outcomes = Counter()
    for sample in files:
        metadata = fuzz._metadata(sample)
        assert load(copy.deepcopy(metadata)).stride == 32
        for path in fuzz._paths(metadata):
            for value in (*fuzz.VALUES, "(" * 3000):
                damaged = copy.deepcopy(metadata)
                fuzz._at(damaged, path[:-1])[path[-1]] = copy.deepcopy(value)
                if not isinstance(damaged, dict) or "edgequant" not in damaged:
                    continue
                answer = fuzz.verdict(lambda damaged=damaged: load(damaged))
                assert answer["outcome"] != "finding", (path, value, answer["text"])
                outcomes[answer["outcome"]] += 1
    assert min(outcomes["works"], outcomes["refused"]) > 100
    with pytest.raises(ContractError, match=r"Ultralytics' own keys .* are damaged \(ValueError: .*'many'\)"):
        load(fuzz._metadata(files[0]) | {"batch": "many"})


def test_a_round_follows_from_its_seed_number_and_file_alone(files, monkeypatch):
    rounds = [fuzz.damaged(files[0], 0, number) for number in range(20)]
    monkeypatch.setattr(time, "localtime", lambda *_: time.gmtime(10**9))  # and not from the time of day
    assert rounds == [fuzz.damaged(files[0], 0, number) for number in range(20)]
    assert rounds != [fuzz.damaged(files[0], 1, number) for number in range(20)]
    assert sum(damaged != files[0].files for _, damaged, _ in rounds) > 15  # a value may be replaced by itself


@pytest.mark.parametrize("kind", fuzz.DAMAGE)
def test_each_damage_changes_something(files, kind):
    if kind in fuzz._FOR_FOLDERS:
        sample = fuzz.Sample("folder", {"model.xml": b"<net/>", "metadata.json": b"{}"})
    else:
        sample = files[1]
    changed = [fuzz.DAMAGE[kind](sample, random.Random(number)) for number in range(6)]
    assert any(contents != sample.files for contents, _ in changed)
    assert all(done for _, done in changed)


@pytest.mark.parametrize(
    ("raised", "outcome"),
    [
        (None, "works"),
        (ContractError("one line"), "refused"),
        (ContractError("two\nlines"), "finding"),
        (ContractError(""), "finding"),
        (EdgeQuantError("x" * 2000), "finding"),
        (KeyError("detections"), "finding"),
        (RecursionError(), "finding"),
        (SystemExit(), "finding"),
    ],
)
def test_what_counts_as_a_finding(raised, outcome):
    def read():
        if raised is not None:
            raise raised

    assert fuzz.verdict(read)["outcome"] == outcome


CHILD = """
import json, os, sys, time
print(json.dumps({"outcome": "ready"}), flush=True)
for line in sys.stdin:
    task = json.loads(line)
    if task["do"] == "crash":
        os.abort()
    if task["do"] == "hang":
        time.sleep(60)
    print(json.dumps({"outcome": "works", "process": str(os.getpid())}), flush=True)
"""


def test_a_crash_and_a_hang_are_findings_and_the_run_goes_on():
    with fuzz.Child([sys.executable, "-c", CHILD], limit=0.5) as child:
        first = child.ask({"do": "work"})
        assert child.ask({"do": "work"}) == first, "one process for many rounds"
        assert child.ask({"do": "crash"}) == {"outcome": "finding", "text": "the process crashed, exit status -6"}
        second = child.ask({"do": "work"})
        assert child.ask({"do": "hang"}) == {"outcome": "finding", "text": "no answer in 0.5 s"}
        third = child.ask({"do": "work"})
    assert first["outcome"] == second["outcome"] == third["outcome"] == "works"
    assert len({answer["process"] for answer in (first, second, third)}) == 3


def test_a_file_that_never_worked_is_no_sample(tmp_path):
    path = tmp_path / "broken.tflite"
    path.write_bytes(b"TFL3")
    with pytest.raises(RuntimeError, match=r"'broken\.tflite' does not work as it is: .*cut off"):
        next(fuzz.fuzz([fuzz.Sample.of(path)], SEED, 1))


def test_the_command_prints_a_table_and_writes_its_results(files, tmp_path, monkeypatch, capsys):
    small, results = files[0].write(files[0].files, tmp_path), tmp_path / "results.json"
    monkeypatch.setattr(sys, "argv", ["fuzz", "--rounds", "12", "--json", str(results), str(small)])
    assert fuzz.main() == 0
    report = json.loads(results.read_text())
    assert (report["rounds"], report["files"], report["findings"]) == (12, [small.name], [])
    assert sum(sum(counts.values()) for counts in report["outcomes"].values()) == 12
    assert "12 rounds in" in capsys.readouterr().out


def test_the_round_in_which_the_time_is_over_is_the_last(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(fuzz.time, "monotonic", lambda: clock[0])

    def rounds():
        for number in range(9):
            clock[0] += 2.0
            yield number

    assert list(fuzz.until(rounds(), 5.0)) == [0, 1, 2]
    assert list(fuzz.until(rounds(), 0.0)) == [0]


def test_minutes_stand_for_a_number_of_rounds(files, tmp_path, monkeypatch, capsys):
    small = files[0].write(files[0].files, tmp_path)
    monkeypatch.setattr(sys, "argv", ["fuzz", "--minutes", "0", str(small)])
    assert fuzz.main() == 0
    assert "1 rounds in" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["fuzz", "--minutes", "1", "--rounds", "3", str(small)])
    with pytest.raises(SystemExit, match="2"):
        fuzz.main()


def test_the_samples_say_what_they_are(files):
    from yolo_edgequant.contract import Contract

    assert [Contract.of(fuzz._metadata(sample)).head for sample in files] == ["raw", "int8"]
    assert Contract.of(fuzz._metadata(files[0])).outputs == graphs.RAW_OUTPUTS
