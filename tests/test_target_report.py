import io
import json

import pytest
from rich.console import Console

from yolo_edgequant import target_report
from yolo_edgequant.options import Target
from yolo_edgequant.patches.device_check import Finding, Severity
from yolo_edgequant.targets.devices import Source, device, devices

SOURCE = Source("example.org/[page]", "2026-01")
FINDINGS = [
    Finding(Severity.REFUSE, "task", "cannot [be] run there", SOURCE),
    Finding(Severity.WARN, "size", "too large", None),
]


def printed(renderable, width=200):
    console = Console(width=width, file=io.StringIO())
    console.print(renderable)
    return console.file.getvalue()


def words(text):
    """What a table says, without its lines and the breaks in its cells."""
    return "".join(text.translate(dict.fromkeys(map(ord, "│┃─━┏┓┗┛┡┩╇┳└┘┴ \n"))).split())


def test_the_overview_has_a_row_for_each_profile():
    text = printed(target_report.overview(devices()))
    rows = {
        cells[0]: cells[1:] for line in text.splitlines() if len(cells := [c.strip() for c in line.split("│")[1:-1]])
    }
    assert list(rows) == list(Target)
    assert rows["frigate-edgetpu"][1:] == ["edgetpu", "raw", "merged", "by format", "int8", "38 listed"]
    assert rows["nxp-imx95"][-1] == "not known"
    assert rows["raspberrypi"][-1] == "all on the CPU"


@pytest.mark.parametrize("name", Target)
def test_the_details_give_every_entry_its_source_and_date(name):
    profile = device(name)
    # one long line a cell, so that nothing is broken
    text = words(printed(target_report.details(profile), 2000))
    entries = (
        *profile.defaults,
        *profile.cautions,
        *profile.activations,
        *profile.memory,
        *profile.models,
        *profile.notes,
    )
    for entry in entries:
        said = getattr(entry, "why", None) or getattr(entry, "text", None) or getattr(entry, "note", "")
        assert "".join(said.split()) in text
        assert "".join(f"{entry.source.where}, {entry.source.date}".split()) in text
    for kind in profile.operators.by_kind if profile.operators else ():
        assert kind in text


def test_what_is_not_known_is_said():
    assert "operators: not known" in printed(target_report.details(device("nxp-imx95")))
    assert "operators: all run on the CPU" in printed(target_report.details(device("arm-cpu")))
    assert "tasks: no limit is known" in printed(target_report.details(device("arm-cpu")))
    assert "NNCF's target_device: NPU" in printed(target_report.details(device("intel-npu")))


def test_constraints_are_in_words():
    text = printed(target_report.details(device("nxp-imx93")), 2000)
    assert "max_rank 4; max_dim 65535; batch_one true; per_axis false" in text
    assert "half_pixel_factors 2" in text
    assert "permutations (1, 0, 2), (0, 2, 1), (2, 1, 0)" in text


def test_a_long_address_is_folded_and_not_cut():
    text = printed(target_report.details(device("coral-edgetpu")), 80)
    assert "…" not in text
    assert "artpec-7/supported-ops" in words(text)


def test_findings_in_a_table():
    text = printed(target_report.findings_table(FINDINGS))
    assert "cannot [be] run there" in text
    assert "example.org/[page], 2026-01" in text
    assert text.index("refuse") < text.index("warn")


def test_findings_as_json(tmp_path):
    path = tmp_path / "findings.json"
    target_report.save_findings(device("nxp-imx93"), FINDINGS, path)
    saved = json.loads(path.read_text())
    assert saved["target"] == "nxp-imx93"
    assert saved["findings"][0] == {
        "severity": "refuse",
        "about": "task",
        "text": "cannot [be] run there",
        "source": {"where": "example.org/[page]", "date": "2026-01"},
    }
    assert saved["findings"][1]["source"] is None


def test_profiles_as_json(tmp_path):
    path = tmp_path / "targets.json"
    target_report.save_devices(devices(), path)
    saved = json.loads(path.read_text())
    assert list(saved) == list(Target)
    rule = saved["frigate-edgetpu"]["operators"]["by_kind"]["SOFTMAX"]
    assert rule["constraints"] == {"only_dims": 1, "max_elements": 16000}
    assert saved["nxp-imx93"]["operators"]["common"]["max_rank"] == 4
    assert saved["nxp-imx95"]["operators"] is None
