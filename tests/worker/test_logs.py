from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime

from tests.support.harness import ROOT

PROGRAM = """
import logging
from worker.logs import configure
configure("worker-3", level="info", log_format="{log_format}")
log = logging.getLogger("some.module")
log.debug("not this")
log.info("said %s", "this", extra={{"fields": {{"request": "r-1", "text": 'two\\nlines "quoted"', "seconds": 0.5}}}})
try:
    1 / 0
except ZeroDivisionError:
    log.exception("failed")
"""


def logged(log_format: str) -> list[str]:
    code = PROGRAM.format(log_format=log_format)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not done.stdout
    return done.stderr.splitlines()


def test_lines_for_people() -> None:
    first, second, *trace = logged("text")
    day, clock, rest = first.split(" ", 2)
    datetime.fromisoformat(f"{day} {clock.replace(',', '.')}")
    assert rest == r'worker-3 INFO said this request=r-1 text="two\nlines \"quoted\"" seconds=0.5'
    assert second.endswith("worker-3 ERROR failed")
    assert trace[0].startswith("Traceback")


def test_an_object_a_line() -> None:
    first, second = map(json.loads, logged("json"))
    moment = datetime.fromisoformat(first.pop("time"))
    assert moment.utcoffset() is not None
    assert first == {
        "level": "info",
        "process": "worker-3",
        "logger": "some.module",
        "message": "said this",
        "request": "r-1",
        "text": 'two\nlines "quoted"',
        "seconds": 0.5,
    }
    assert second["message"] == "failed"
    assert "ZeroDivisionError" in second["exc_info"]
