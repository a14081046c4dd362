"""A pytest plugin for Ultralytics' own tests: what comes of each is written at once, and is not tried again.

So a test that hangs or breaks the process off costs no other: the same command goes on behind it. The environment's
``UPSTREAM_OUTCOMES`` names the file, a line of JSON an outcome, of which a test's last counts.
"""

import json
import os
from pathlib import Path

FILE = Path(os.environ["UPSTREAM_OUTCOMES"])
UNFINISHED = "did not end"


def pytest_collection_modifyitems(items):
    known = {json.loads(line)["test"] for line in FILE.read_text().splitlines()} if FILE.exists() else set()
    items[:] = [item for item in items if item.name not in known]


def pytest_runtest_logstart(nodeid):
    _write(nodeid, "failed", UNFINISHED, 0.0)


def pytest_runtest_logreport(report):
    if report.when == "call" or report.outcome != "passed":
        why = report.longrepr[2] if report.skipped else getattr(report.longrepr, "reprcrash", report.longrepr)
        reason = "" if report.passed else " ".join(str(getattr(why, "message", why)).split())
        _write(report.nodeid, report.outcome, reason, report.duration)


def _write(nodeid, name, reason, seconds):
    line = {"test": nodeid.rpartition("::")[2], "name": name, "reason": reason, "seconds": seconds}
    with FILE.open("a") as file:
        file.write(json.dumps(line) + "\n")
