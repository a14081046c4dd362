"""Tables of a page in Markdown, written from results: ``python -m yolo_edgequant.bench.docs_page TOML JSON PAGE``.

TOML is the models' file, JSON the results of ``yolo-edgequant zoo``, which writes pages, too; this measures nothing.
A table stands between ``<!-- bench: NAME -->`` and ``<!-- end -->``. NAME is a model's, or ``all`` for one table of
what all models keep. Whatever was there is replaced, and the rest of the page stays.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ..errors import EdgeQuantError, ModelsFileError
from ..files import atomic_write
from . import report
from .models import DRAWN, RESERVED, read
from .run import Row
from .zoo import Result, load, merged

_BEGIN, _BEHIND, _END = "<!-- bench: ", " -->", "<!-- end -->"
_UNMEASURED = "Not measured yet."


def fill(page: str, results: Sequence[Result]) -> str:
    """A page with its tables as the results are; a model without a result gets a line that says so.

    Args:
        page: Markdown.
        results: of the models.

    Raises:
        ModelsFileError: a marker begins or ends nothing.
    """
    blocks = {RESERVED: summary(results), **{result.name: section(result) for result in results}}
    lines: list[str] = []
    inside = ""
    for line in page.splitlines():
        begins = line.startswith(_BEGIN) and line.endswith(_BEHIND)
        if begins == bool(inside) and (begins or line == _END):
            raise ModelsFileError(f"'{line}' follows '{inside}'" if inside else f"'{line}' ends no table of the page")
        if begins:
            inside = line
            name = line.removeprefix(_BEGIN).removesuffix(_BEHIND)
            lines += [line, "", *blocks.get(name, _UNMEASURED).splitlines(), ""]
        elif line == _END:
            inside = ""
        if not inside:
            lines.append(line)
    if inside:
        raise ModelsFileError(f"'{inside}' has no '{_END}' behind it")
    return "\n".join(lines) + "\n"


def section(result: Result) -> str:
    """What was measured of a model: its tables, and what with, in Markdown."""
    parts = [report.markdown(result.rows)] if result.rows else []
    parts += [f"Failed: {problem}" for problem in result.problems]
    return "\n\n".join([*parts, _said(result)])


def summary(results: Sequence[Result]) -> str:
    """One table of what the files of all models keep, in per cent, in Markdown; a column for each model."""
    if not results:
        return _UNMEASURED
    by_file = [{(row.format, row.head, row.granularity): row for row in result.rows} for result in results]
    files = list(dict.fromkeys(file for rows in by_file for file in rows))
    files.sort(key=lambda file: file[0] != "pytorch")  # models that failed at once have no such row
    titles = ["format", "head", "weights", *(result.name for result in results)]
    lines = ["| " + " | ".join(titles) + " |", "| --- " * len(titles) + "|"]
    for file in files:
        cells = [_kept(rows.get(file)) for rows in by_file]
        lines.append("| " + " | ".join([*file, *cells]) + " |")
    return "\n".join(lines)


def _kept(row: Row | None) -> str:
    if row is None:
        return "-"
    if row.retention is None:
        return "failed"
    if row.head == "fp32":
        return f"mAP50-95 {row.map:.4f}"
    error = "" if row.retention_error is None else f" ± {100 * row.retention_error:.1f}"
    return f"{100 * row.retention:.1f}{error}" + (f", should {100 * (row.keeps or 0):g}" if row.is_short else "")


def _said(result: Result) -> str:
    """A paragraph of the run's facts."""
    facts = result.facts
    height, width = result.imgsz
    images = "drawn images" if result.data == DRAWN else f"images of {result.data}"
    counts = f"Validated on {_number(result.validated)} {images}, calibrated on {_number(result.calibrated)}."
    free = ", NMS-free output" if result.nms_free else ""
    model = f"{result.checkpoint} ({result.task}, {height} x {width}{free})"
    versions = ", ".join(f"{name} {version}" for name, version in facts.packages.items())
    commit = "" if facts.commit is None else f" at commit {facts.commit}"
    cpu = f"{facts.cpu or 'unknown CPU'} with {', '.join(facts.features) or 'no known INT8 feature'}"
    if facts.cores is not None and facts.load is not None:
        cpu += f", {facts.cores} cores with a load of {facts.load:.1f} just before"
    return (
        f"{counts} {model}, {facts.date}, yolo-edgequant {facts.version}{commit}; Python {facts.python}, {versions}; "
        f"{cpu}; {result.threads} thread{'s' * (result.threads > 1)} when timed."
    )


def _number(count: int | None) -> str:
    return "an unknown number of" if count is None else f"{count:,}"


def rewrite(page: Path, results: Sequence[Result]) -> None:
    """Fill a file's tables.

    Raises:
        ModelsFileError: there is no such file, or a marker begins or ends nothing.
        OutputError: it cannot be written.
    """
    if not page.is_file():
        raise ModelsFileError(f"page '{page}' not found (looked in {Path.cwd()})")
    filled = fill(page.read_text(encoding="utf-8"), results)
    with atomic_write(page) as temporary:
        temporary.write_text(filled, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the module's description says; an error of ours is one line and exit status 1."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if len(given) != 3:
        print("usage: python -m yolo_edgequant.bench.docs_page TOML JSON PAGE", file=sys.stderr)
        return 2
    models, results, page = map(Path, given)
    try:
        rewrite(page, merged(load(results), [], read(models)))
    except EdgeQuantError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"written: {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
