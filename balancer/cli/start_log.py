"""The lines that `chorus serve` writes before supervisord runs, in the format of the log from the first one on."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from typing import NoReturn

import typer

from balancer.cli.console import fail, tell
from balancer.runtime.systemd import with_priority, writes_to_journal

STANDARD_ERROR = 2
"""Its file descriptor."""


def as_json(level: str, message: str, **fields: object) -> str:
    """A line of the log: one JSON object."""
    entry = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "level": level,
        "process": "serve",
        "message": message,
    }
    return json.dumps(entry | fields)


def report(message: str) -> None:
    """Write a line about the start."""
    if _is_json():
        _write(as_json("info", message), "info")
    else:
        tell(message)


def fail_to_start(message: str, code: int) -> NoReturn:
    """Write why the server does not start, and end the command with that exit code."""
    if _is_json():
        _write(as_json("error", message), "error")
    elif writes_to_journal(STANDARD_ERROR):
        for line in message.splitlines():
            _write(f"chorus: {line}", "error")
    else:
        fail(message, code)
    raise typer.Exit(code)


def _is_json() -> bool:
    # Not by the settings, which may be at fault.
    return os.environ.get("CHORUS_LOG_FORMAT") == "json"


def _write(line: str, level: str) -> None:
    sys.stderr.write(f"{with_priority(line, level) if writes_to_journal(STANDARD_ERROR) else line}\n")
    sys.stderr.flush()
