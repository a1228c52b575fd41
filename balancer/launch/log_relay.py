"""`python -m balancer.launch.log_relay`: passes the output of all processes on to standard output; blocks none of them.

It stands between supervisord and standard output. supervisord opens /dev/fd/1 anew for each program's output: a socket,
such as systemd's journal, refuses that, and so does another user's terminal; in a file, the programs would overwrite
each other's output. And supervisord stands still, with all that it supervises, while nobody reads its output: the relay
reads at once whatever comes, and drops lines while its own reader does not read.

With `--json` a line that is no JSON object, such as supervisord's own, becomes one. A line that goes to systemd's
journal has its level before it, as a priority.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from balancer.runtime.systemd import with_priority, writes_to_journal
from worker.log_queue import LineWriter

FLUSH_SECONDS = 2.0
"""How long the relay waits for its reader once all other processes have ended."""

READ_BYTES = 65_536

MAX_LINE_BYTES = 2**20
"""A longer line is passed on in pieces."""

SUPERVISOR_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (?P<level>[A-Z]{4}) (?P<message>.*)")
NO_EVENT = "Server 'unix_http_server' running without any HTTP authentication checking"
"""supervisord calls that critical at each start. Its socket lies in a folder that only the server's user can open."""

ABBREVIATIONS = {"CRIT": "critical", "ERRO": "error", "WARN": "warning", "INFO": "info", "DEBG": "debug"}

LEVEL = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (?:[\w.-]+ )??(?P<level>[A-Z]{4,8}) ")
"""The level of a line of text, of supervisord's and of the other processes'."""

Encoder = Callable[[str], bytes]


def relay(source: int, target: int, encode: Encoder) -> None:
    """Pass lines on from `source` to `target`, both file descriptors, until `source` ends."""
    writer = LineWriter(target, lambda dropped: encode(f"{dropped} lines dropped: nobody read the log"))
    for line in _lines(source):
        if line.endswith(NO_EVENT):
            continue
        if encoded := encode(line):
            writer.write(encoded)
    writer.flush(FLUSH_SECONDS)


def as_text(line: str) -> bytes:
    """The line as it came."""
    return f"{line}\n".encode(errors="surrogateescape")


def as_json(line: str) -> bytes:
    """The line, if it is a JSON object; otherwise an object with the line as its message. Empty for an empty line."""
    if line.startswith("{") and _is_object(line):
        return as_text(line)
    if not line.strip():
        return b""
    match = SUPERVISOR_LINE.fullmatch(line)
    entry = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "level": ABBREVIATIONS.get(match["level"], "info") if match else "info",
        "process": "supervisord" if match else "output",
        "message": match["message"] if match else line,
    }
    return f"{json.dumps(entry)}\n".encode()


class AsJournal:
    """Lines as another encoder makes them, with priorities. A line that tells no level continues the line before it."""

    def __init__(self, encode: Encoder) -> None:
        self._encode = encode
        self._level = "info"

    def __call__(self, line: str) -> bytes:
        """The line; empty where the encoder's is."""
        encoded = self._encode(line)
        if not encoded:
            return b""
        self._level = _level_of(encoded.decode(errors="surrogateescape")) or self._level
        return with_priority("", self._level).encode() + encoded


def _level_of(line: str) -> str | None:
    """The level that a line tells, of text or JSON."""
    if match := LEVEL.match(line):
        return ABBREVIATIONS.get(match["level"], match["level"].lower())
    if not line.startswith("{"):
        return None
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    level = entry.get("level") if isinstance(entry, dict) else None
    return level if isinstance(level, str) else None


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _lines(source: int) -> Iterator[str]:
    """The lines that arrive, without their ends; bytes that are not UTF-8 as surrogates."""
    rest = b""
    while data := os.read(source, READ_BYTES):
        *lines, rest = (rest + data).split(b"\n")
        yield from (line.decode(errors="surrogateescape") for line in lines)
        if len(rest) > MAX_LINE_BYTES:
            yield rest.decode(errors="surrogateescape")
            rest = b""
    if rest:
        yield rest.decode(errors="surrogateescape")


def main() -> None:
    """Relay standard input to standard output."""
    encode: Encoder = as_json if "--json" in sys.argv[1:] else as_text
    relay(0, 1, AsJournal(encode) if writes_to_journal(1) else encode)
    # Not by the interpreter's own way out, which would wait for a writer that nobody reads.
    os._exit(0)


if __name__ == "__main__":
    main()
