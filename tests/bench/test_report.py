import csv
import io
import json
from dataclasses import asdict, fields, replace

from rich.console import Console

from yolo_edgequant.bench import report
from yolo_edgequant.bench.run import Row

FULL = Row(
    "litert", "float", "channel", "minmax", 0.35218, 0.5, 0.9651, 41.26, 3.456, 12.34, 812.4, retention_error=0.00456
)
EMPTY = Row("openvino", "stock")
FAILED = Row("tflite", "int8", "tensor", "minmax", error='export failed: it, says "no"')
ROWS = [FULL, EMPTY, FAILED]

CELLS = ["litert", "float", "channel", "minmax", "0.3522", "0.5000", "96.5%", "0.46%", "41.3", "3.46", "12.3", "812"]
TITLES = "format head weights ranges mAP50-95 mAP50 retention ±|latency ms|size MB|export s|peak MB"


def shown(rows):
    """The table's lines as lists of cells."""
    out = io.StringIO()
    Console(file=out, width=160, force_terminal=False).print(report.table(rows))
    return [[cell.strip() for cell in line[1:-1].split("│")] for line in out.getvalue().splitlines() if "│" in line]


def test_table_prints_every_figure_in_its_column():
    full, empty, failed = shown(ROWS)
    assert full == CELLS
    assert empty == ["openvino", "stock", *["-"] * 10]
    assert failed == ["tflite", "int8", "tensor", "minmax", "failed", *["-"] * 7]


def test_a_zero_is_a_figure_and_not_a_gap():
    (row,) = shown([Row("tflite", "stock", map=0.0, map50=0.0, retention=0.0)])
    assert row[4:7] == ["0.0000", "0.0000", "0.0%"]


def test_markdown_is_a_table_with_the_same_cells():
    lines = report.markdown(ROWS).splitlines()
    split = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len(lines) == 2 + len(ROWS)
    assert split[0] == [*TITLES.split("|")[0].split(), *TITLES.split("|")[1:]]
    assert set(split[1]) == {"---"}
    assert split[2] == CELLS
    assert split[3] == ["openvino", "stock", *["-"] * 10]
    assert {len(cells) for cells in split} == {12}


def test_markdown_marks_a_failed_row_as_the_table_does():
    cells = [cell.strip() for cell in report.markdown([FAILED]).splitlines()[-1].strip("|").split("|")]
    assert [cells] == shown([FAILED])
    assert "failed" in cells


def test_times_from_image_to_boxes_have_columns_if_there_are_any():
    (timed, other) = shown([replace(FULL, image_ms=20.04, decoding_ms=0.957), EMPTY])
    assert timed == [*CELLS, "20.0", "0.96"]
    assert other[-2:] == ["-", "-"]


def test_corrections_have_a_column_if_some_were_left_out():
    none, every = shown([replace(FULL, corrections="none"), replace(FULL, corrections="all")])
    assert none == [*CELLS[:4], "none", *CELLS[4:]]
    assert every == [*CELLS[:4], "all", *CELLS[4:]]
    assert shown([replace(FULL, corrections="all")]) == [CELLS]


def test_a_row_that_could_not_be_timed_keeps_its_figures():
    (row,) = shown([replace(FULL, latency_ms=None, error="not timed: out of luck")])
    assert row == [*CELLS[:8], "failed", *CELLS[9:]]


def test_a_row_is_a_line_with_what_is_known_of_it():
    assert report.line(FULL) == (
        "  litert, float, channel, minmax, mAP50-95 0.3522, mAP50 0.5000, retention 96.5%, ± 0.46%, "
        "latency ms 41.3, size MB 3.46, export s 12.3, peak MB 812"
    )
    assert report.line(EMPTY) == "  openvino, stock"
    assert report.line(Row("pytorch", "fp32", map=0.4, map50=0.5, retention=1.0)) == (
        "  pytorch, fp32, mAP50-95 0.4000, mAP50 0.5000, retention 100.0%"
    )


def test_a_line_says_where_a_row_failed():
    assert report.line(FAILED) == "  tflite, int8, tensor, minmax, mAP50-95 failed"
    assert report.line(replace(FULL, latency_ms=None, error="not timed")).count("latency ms failed") == 1


SCORES = {"f1_float": 0.45284, "f1": 0.44128, "threshold_shift": 0.0031, "score_change": -0.02158}


def test_scores_have_a_table_of_their_own_if_they_were_compared():
    out = io.StringIO()
    Console(file=out, width=160, force_terminal=False).print(report.scores([replace(FULL, **SCORES), EMPTY]))
    cells = [[cell.strip() for cell in line[1:-1].split("│")] for line in out.getvalue().splitlines() if "│" in line]
    assert cells == [[*CELLS[:4], "0.4528", "0.4413", "+0.003", "-0.022"]]
    assert report.scores(ROWS) is None
    assert report.markdown(ROWS).count("---") == 12


def test_markdown_has_the_scores_below():
    first, second = report.markdown([replace(FULL, **SCORES), EMPTY]).split("\n\n")
    assert len(first.splitlines()) == 4
    assert second.splitlines()[2:] == ["| litert | float | channel | minmax | 0.4528 | 0.4413 | +0.003 | -0.022 |"]


def test_json_has_every_field_of_every_row(tmp_path):
    as_json, _ = report.save(ROWS, tmp_path / "new")
    assert as_json == tmp_path / "new" / "bench.json"
    assert [Row(**values) for values in json.loads(as_json.read_text())] == ROWS


def test_csv_has_every_field_of_every_row_and_empty_cells_for_none(tmp_path):
    _, as_csv = report.save(ROWS, tmp_path)
    with as_csv.open(newline="") as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == [field.name for field in fields(Row)]
    assert read == [{k: "" if v is None else str(v) for k, v in asdict(row).items()} for row in ROWS]
    assert float(read[0]["map"]) == FULL.map
    assert read[2]["error"] == FAILED.error


def test_saving_again_replaces_the_older_tables(tmp_path):
    report.save(ROWS, tmp_path)
    as_json, as_csv = report.save([FULL], tmp_path)
    assert len(json.loads(as_json.read_text())) == 1
    assert len(as_csv.read_text().splitlines()) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bench.csv", "bench.json"]


def test_what_a_row_should_keep_has_a_column_if_it_was_said():
    kept, short, other = shown([replace(FULL, keeps=0.97), replace(FULL, keeps=0.975), EMPTY])
    assert kept == [*CELLS[:8], "97.0%", *CELLS[8:]], "two standard errors are 0.9 points"
    assert short == [*CELLS[:8], "97.5%: no", *CELLS[8:]]
    assert other[8] == "-"


def test_several_models_have_one_table_with_their_names():
    out = io.StringIO()
    both = {"one": [FULL, EMPTY], "two": [replace(FULL, keeps=0.5)], "none": []}
    Console(file=out, width=180, force_terminal=False).print(report.table_of_models(both))
    rows = [[cell.strip() for cell in line[1:-1].split("│")] for line in out.getvalue().splitlines() if "│" in line]
    assert [(row[0], row[1], row[9]) for row in rows] == [
        ("one", "litert", "-"),
        ("one", "openvino", "-"),
        ("two", "litert", "50.0%"),
    ]
    assert rows[2] == ["two", *CELLS[:8], "50.0%", *CELLS[8:]]


def test_several_models_have_one_table_of_scores():
    out = io.StringIO()
    models = {"one": [replace(FULL, **SCORES), EMPTY], "two": [EMPTY], "three": [replace(FULL, **SCORES)]}
    Console(file=out, width=160, force_terminal=False).print(report.scores_of_models(models))
    cells = [[cell.strip() for cell in line[1:-1].split("│")] for line in out.getvalue().splitlines() if "│" in line]
    assert cells == [[name, *CELLS[:4], "0.4528", "0.4413", "+0.003", "-0.022"] for name in ("one", "three")]
    assert report.scores_of_models({"two": [EMPTY]}) is None
