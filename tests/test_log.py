import ast
import logging
import subprocess
import sys
from pathlib import Path

import pytest

import yolo_edgequant
from yolo_edgequant.log import LOGGER, quiet
from yolo_edgequant.processes import environment

PACKAGE = Path(yolo_edgequant.__file__).parent


@pytest.fixture
def shown():
    """What Ultralytics' logger would show of ours at its usual level."""

    class Shown(logging.Handler):
        def emit(self, record):
            lines.append(record.getMessage().removeprefix("WARNING ⚠️ "))  # which upstream's own handler puts there

    lines = []
    parent, handler = logging.getLogger("ultralytics"), Shown()
    level = parent.level
    parent.setLevel(logging.INFO)
    parent.addHandler(handler)
    yield lines
    parent.removeHandler(handler)
    parent.setLevel(level)


def test_what_is_logged_is_shown_where_ultralytics_own_is(shown):
    assert LOGGER.parent is logging.getLogger("ultralytics")
    LOGGER.info("the whole graph: 230 operations in int8")
    LOGGER.debug("not this")
    assert shown == ["the whole graph: 230 operations in int8"]


def test_it_is_as_quiet_as_ultralytics_own(shown):
    logging.getLogger("ultralytics").setLevel(logging.WARNING)
    LOGGER.info("not this")
    LOGGER.warning("but this")
    assert shown == ["but this"]


def test_quiet_shows_warnings_only_and_ends_with_its_block(shown):
    with quiet():
        LOGGER.info("not this")
        LOGGER.warning("a warning")
        with quiet():
            LOGGER.info("nor this")
        LOGGER.info("nor this")
        logging.getLogger("ultralytics").info("upstream's own is left alone")
    LOGGER.info("again")
    assert shown == ["a warning", "upstream's own is left alone", "again"]


def test_quiet_ends_after_an_exception(shown):
    with pytest.raises(RuntimeError, match="inside"), quiet():
        raise RuntimeError("inside")
    LOGGER.info("again")
    assert shown == ["again"]


def test_quiet_that_is_not_wanted_does_nothing(shown):
    with quiet(False):
        LOGGER.info("shown")
    assert shown == ["shown"]


@pytest.mark.parametrize(
    ("arguments", "lines"), [({}, ["ranges"]), ({"verbose": True}, ["ranges"]), ({"verbose": False}, [])]
)
def test_an_export_that_is_not_verbose_is_quiet(shown, arguments, lines):
    from yolo_edgequant.patches.exporter import model_export

    passed = []

    def original(self, **kwargs):
        passed.append(kwargs)
        LOGGER.info("ranges")

    model_export(original, None, head="raw", **arguments)
    assert shown == lines
    assert passed == [arguments]


def test_there_is_no_other_logger():
    calls = [
        (file.relative_to(PACKAGE).as_posix(), ast.unparse(node))
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("getLogger")
    ]
    assert calls == [("log.py", "logging.getLogger('ultralytics.yolo_edgequant')")]


@pytest.mark.export
def test_beside_the_real_ultralytics_it_is_printed(tmp_path):
    code = "from ultralytics import YOLO; from yolo_edgequant.log import LOGGER; LOGGER.info('230 operations in int8')"
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    )
    assert shown.stdout.splitlines()[-1] == "230 operations in int8"


def test_on_a_device_without_ultralytics_only_warnings_are(tmp_path):
    code = "from yolo_edgequant.log import LOGGER; LOGGER.info('not this'); LOGGER.warning('but this')"
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    )
    assert (shown.stdout, shown.stderr) == ("", "but this\n")
