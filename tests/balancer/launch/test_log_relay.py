"""The relay as `chorus serve` starts it, with a reader that reads, and one that does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

from balancer.launch.log_relay import NO_EVENT, AsJournal, as_json, as_text
from tests.support.harness import ROOT, TIMEOUT

RELAY = [sys.executable, "-m", "balancer.launch.log_relay"]


def relayed(data: bytes, *options: str) -> bytes:
    return subprocess.run(
        [*RELAY, *options], cwd=ROOT, input=data, capture_output=True, check=True, timeout=TIMEOUT
    ).stdout


def test_lines_pass_as_they_are() -> None:
    data = "first\n\n  größer\n".encode() + b"\xff not utf-8\nlast without an end"
    assert relayed(data) == data + b"\n"


def test_what_is_no_event_is_left_out() -> None:
    assert relayed(f"2026-11-29 04:58:12,748 CRIT {NO_EVENT}\nkept\n".encode()) == b"kept\n"


def test_every_line_is_json_in_utc_where_the_log_is() -> None:
    own = '{"time": "2026-11-29T04:58:12.748+00:00", "level": "info", "message": "a"}'
    lines = [own, "2026-11-29 04:58:13,760 WARN exited: worker-0", "{no json", "", '"text"', "Traceback:"]
    first, *others = relayed("\n".join(lines).encode(), "--json").decode().splitlines()
    assert first == own
    entries = [json.loads(line) for line in others]
    assert [(entry["process"], entry["level"], entry["message"]) for entry in entries] == [
        ("supervisord", "warning", "exited: worker-0"),
        ("output", "info", "{no json"),
        ("output", "info", '"text"'),
        ("output", "info", "Traceback:"),
    ]
    for entry in entries:
        moment = datetime.fromisoformat(entry["time"])
        assert moment.utcoffset() == timedelta(0)
        assert datetime.now(UTC) - moment < timedelta(seconds=2 * TIMEOUT)


def test_lines_for_the_journal_have_the_priority_of_their_level() -> None:
    encode = AsJournal(as_text)
    moment = "2026-11-29 04:58:13,760"
    expected = {
        f"{moment} WARN exited: worker-0": 4,
        f"{moment} worker-0 ERROR the model fails": 3,
        "Traceback (most recent call last):": 3,
        f"{moment} balancer INFO POST /tts 200": 6,
        f"{moment} worker-0 DEBUG a step": 7,
        f"{moment} CRIT it ends": 2,
    }
    assert [encode(line) for line in expected] == [f"<{level}>{line}\n".encode() for line, level in expected.items()]


def test_json_for_the_journal_has_the_priority_of_its_level_before_it() -> None:
    encode = AsJournal(as_json)
    line = '{"level": "warning", "message": "a"}'
    assert encode(line) == f"<4>{line}\n".encode()
    assert encode("2026-11-29 04:58:13,760 ERRO no").startswith(b'<3>{"time"')
    assert encode("") == b""


def test_a_reader_that_does_not_read_blocks_no_writer() -> None:
    line = b"x" * 999 + b"\n"
    reading, writing = os.pipe()
    with subprocess.Popen(RELAY, cwd=ROOT, stdin=subprocess.PIPE, stdout=writing) as relay:
        os.close(writing)
        assert relay.stdin is not None
        relay.stdin.write(20_000 * line)
        relay.stdin.flush()
        with os.fdopen(reading, "rb") as reader:
            while not reader.readline().endswith(b"nobody read the log\n"):
                pass
            relay.stdin.write(b"here again\n")
            relay.stdin.close()
            while (latest := reader.readline()) not in (b"here again\n", b""):
                pass
            assert latest == b"here again\n"
    assert relay.returncode == 0
