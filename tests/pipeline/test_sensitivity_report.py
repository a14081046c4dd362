import json

from rich.console import Console

from yolo_edgequant.pipeline import sensitivity_report
from yolo_edgequant.pipeline.sensitivity import Cost, Trial

RANKED = [Cost(f"layer {n}", 0.5 / (n + 1)) for n in range(12)]
TRIALS = [Trial(12, 0.999, 50.0), Trial(0, 0.95, 16.0), Trial(2, 0.991, 17.5)]


def text_of(table):
    console = Console(width=120, record=True)
    console.print(table)
    return console.export_text()


def test_the_ten_costliest_are_shown_with_their_precision():
    rows = text_of(sensitivity_report.ranking(RANKED, 2)).splitlines()
    assert [("float" in row) for row in rows if row.startswith("│ layer ") and "noise" not in row] == [True, True] + [
        False
    ] * 8


def test_trials_go_from_none_to_all():
    text = text_of(sensitivity_report.trials(TRIALS))
    assert [text.index(share) for share in ("95.0%", "99.1%", "99.9%")] == sorted(
        text.index(share) for share in ("95.0%", "99.1%", "99.9%")
    )


def test_the_report_is_json_and_a_picture(tmp_path):
    sensitivity_report.save(RANKED, TRIALS, tmp_path / "sensitivity.json")
    said = json.loads((tmp_path / "sensitivity.json").read_text())
    assert [trial["in_float"] for trial in said["trials"]] == [0, 2, 12]
    assert said["layers"][0] == {"layer": "layer 0", "noise": 0.5}
    assert (tmp_path / "sensitivity.png").read_bytes().startswith(b"\x89PNG")
