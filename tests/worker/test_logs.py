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


HOSTILE = """
import logging
from worker.logs import configure
configure("balancer", level="info", log_format="text")
value = "\\x9b31mEVIL\\x85line\\u2028two\\x1b[2J\\x7f"
logging.info("GET /%s", value, extra={"fields": {"caller": value, "quoted": "a b" + value}})
try:
    raise ValueError(value)
except ValueError:
    logging.exception("failed")
"""


def test_control_characters_are_escaped_in_messages_fields_and_exceptions() -> None:
    done = subprocess.run([sys.executable, "-c", HOSTILE], cwd=ROOT, capture_output=True, check=True)
    text = done.stderr.decode()
    assert not set(text) & {chr(code) for code in (*range(10), *range(11, 32), *range(127, 160), 0x2028)}
    first, *rest = text.splitlines()
    escaped = r"\x9b31mEVIL\x85line\u2028two\x1b[2J\x7f"
    assert f"GET /{escaped} caller=" in first
    assert rest[-1] == f"ValueError: {escaped}"


NOBODY_READS = """
import logging, os, sys
from worker.logs import configure, dropped_lines
reading, writing = os.pipe()
os.dup2(writing, 2)
configure("balancer", level="info", log_format="text")
for number in range(20_000):
    logging.info("line %d of many", number, extra={"fields": {"text": "x" * 1000}})
print(dropped_lines())
"""


def test_a_process_whose_log_nobody_reads_goes_on_and_ends() -> None:
    done = subprocess.run([sys.executable, "-c", NOBODY_READS], cwd=ROOT, capture_output=True, check=True, timeout=60)
    assert int(done.stdout) > 5_000
