import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench.test_zoo import FACTS, FP32, GOOD, RESULT
from yolo_edgequant.bench import docs_page, models, report, zoo
from yolo_edgequant.errors import ModelsFileError

ROOT = Path(__file__).parents[2]
PAGE = """# Title

Before.

<!-- bench: shapes -->
typed
<!-- end -->

Between.

<!-- bench: all -->
<!-- end -->

<!-- bench: other -->
| old |
<!-- end -->

After.
"""


def blocks(page):
    """What stands between the markers, by name."""
    return dict(re.findall(r"^<!-- bench: (\S+) -->\n\n(.*?)\n\n<!-- end -->$", page, re.MULTILINE | re.DOTALL))


def test_the_tables_are_written_and_the_rest_stays():
    page = docs_page.fill(PAGE, [RESULT])
    assert blocks(page) == {
        "shapes": docs_page.section(RESULT),
        "all": docs_page.summary([RESULT]),
        "other": "Not measured yet.",
    }
    outside = re.split(r"<!-- bench.*?<!-- end -->\n", page, flags=re.DOTALL)
    assert outside == re.split(r"<!-- bench.*?<!-- end -->\n", PAGE, flags=re.DOTALL)
    assert "typed" not in page
    assert docs_page.fill(page, [RESULT]) == page
    assert set(blocks(docs_page.fill(page, [])).values()) == {"Not measured yet."}


def test_a_section_has_the_tables_and_what_they_were_measured_with():
    text = docs_page.section(RESULT)
    assert text.startswith(report.markdown([FP32, GOOD]))
    assert "| 98.8% | 0.40% | 98.5% |" in text
    assert text.splitlines()[-1] == (
        "Validated on 40 drawn images, calibrated on 128. shapes.pt (detect, 160 x 160), 2026-01-31, yolo-edgequant "
        "0.1.0 at commit abc1234; Python 3.11.7, numpy 2.0; A CPU with avx2; 2 threads when timed."
    )
    loaded = replace(RESULT, facts=replace(FACTS, cores=2, load=7.94))
    assert "; A CPU with avx2, 2 cores with a load of 7.9 just before; 2 threads" in docs_page.section(loaded)
    other = replace(RESULT, data="coco.yaml", nms_free=True, threads=1, calibrated=None)
    text = docs_page.section(replace(other, facts=replace(FACTS, commit=None, cpu="", features=())))
    assert "Validated on 40 images of coco.yaml, calibrated on an unknown number of. " in text
    assert "(detect, 160 x 160, NMS-free output), 2026-01-31, yolo-edgequant 0.1.0; " in text
    assert text.endswith("; unknown CPU with no known INT8 feature; 1 thread when timed.")


def test_a_section_says_what_failed():
    short = replace(RESULT, rows=(FP32, replace(GOOD, retention=0.9)), error="out of luck")
    text = docs_page.section(short)
    assert "| 90.0% | 0.40% | 98.5%: no |" in text
    assert "\n\nFailed: shapes: out of luck\n\nFailed: shapes, tflite float channel: keeps 90.00% ± 0.40%" in text
    assert docs_page.section(replace(RESULT, rows=(), error="out of luck")).startswith("Failed: shapes: out of luck\n")


def test_the_summary_has_a_column_for_each_model_and_a_row_for_each_file():
    other = replace(GOOD, head="raw", retention=0.9, retention_error=0.01)
    failed = replace(GOOD, retention=None, error="export failed")
    two = replace(RESULT, name="two", rows=(replace(FP32, map=0.5), other, failed))
    none = replace(RESULT, name="none", rows=(), error="out of luck")
    assert docs_page.summary([none, RESULT, two]).splitlines() == [
        "| format | head | weights | none | shapes | two |",
        "| --- | --- | --- | --- | --- | --- |",
        "| pytorch | fp32 | - | - | mAP50-95 0.8000 | mAP50-95 0.5000 |",
        "| tflite | float | channel | - | 98.8 ± 0.4 | failed |",
        "| tflite | raw | channel | - | - | 90.0 ± 1.0, should 98.5 |",
    ]


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("<!-- bench: a -->\n", "'<!-- bench: a -->' has no '<!-- end -->' behind it"),
        ("<!-- bench: a -->\n<!-- bench: b -->\n<!-- end -->", "'<!-- bench: b -->' follows '<!-- bench: a -->'"),
        ("<!-- end -->\n", "'<!-- end -->' ends no table"),
    ],
)
def test_a_marker_that_begins_or_ends_nothing_is_refused(tmp_path, page, said):
    (tmp_path / "page.md").write_text(page)
    with pytest.raises(ModelsFileError, match=re.escape(said)):
        docs_page.rewrite(tmp_path / "page.md", [RESULT])
    assert (tmp_path / "page.md").read_text() == page


def test_the_command_rewrites_a_page_from_results_and_from_what_is_expected_now(tmp_path, capsys):
    zoo.save([RESULT, replace(RESULT, name="gone")], tmp_path / "zoo.json")
    (tmp_path / "page.md").write_text(PAGE)
    head = '[shapes]\ncheckpoint = "shapes.pt"\ntask = "detect"\ndata = "shapes"\n'
    (tmp_path / "models.toml").write_text(f"{head}[shapes.keeps]\ntflite.float.channel = 99.9\n")
    given = [str(tmp_path / name) for name in ("models.toml", "zoo.json", "page.md")]
    assert docs_page.main(given) == 0
    raised = replace(RESULT, rows=(FP32, replace(GOOD, keeps=0.999)))
    assert (tmp_path / "page.md").read_text() == docs_page.fill(PAGE, [raised])
    for number in range(3):
        assert docs_page.main([*given[:number], str(tmp_path / "none"), *given[number + 1 :]]) == 1
    assert docs_page.main([]) == 2
    assert [line.partition(" ")[0] for line in capsys.readouterr().err.splitlines()] == ["error:"] * 3 + ["usage:"]


def test_no_row_of_the_benchmarks_was_typed():
    """The page is what the results say, and every model of the repository has its place in it."""
    entries, page = models.read(ROOT / "models.toml"), (ROOT / "docs" / "benchmarks.md").read_text()
    results = zoo.merged(zoo.load(ROOT / "docs" / "benchmarks.json"), [], entries)
    assert docs_page.fill(page, results) == page, "python -m yolo_edgequant.bench.docs_page writes it"
    assert set(blocks(page)) == {"all", *(entry.name for entry in entries)}
    typed = re.sub(r"<!-- bench: .*?<!-- end -->", "", page, flags=re.DOTALL)
    cell = r"^\|.*\| *[+-]?\d[\d.]* *%? *\|"
    assert not re.search(cell, typed, re.MULTILINE), "a figure in a table that no command wrote"
    assert re.search(cell, docs_page.section(RESULT), re.MULTILINE)
