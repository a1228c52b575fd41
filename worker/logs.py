"""Logging of balancer and worker: text lines for people, or one JSON object per line.

The values of a line are passed as `extra={"fields": {...}}`; its message need not repeat them. No process ever waits
for the reader of its log: see `worker.log_queue`.
"""

from __future__ import annotations

import atexit
import json
import logging
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from worker.log_queue import LineWriter

log = logging.getLogger(__name__)

FLUSH_SECONDS = 1.0
"""Time that the end of a process waits for its last lines to be written."""

_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""C0, DEL, C1 and the line ends of Unicode: a terminal obeys them, and some readers of logs end a line at them."""


def configure(process: str, *, level: str, log_format: str) -> None:
    """Log to standard error from `level` up, as `text` or `json`; every line names `process`."""
    handler = _QueuedHandler(_AsJson(process) if log_format == "json" else _AsText(process))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    atexit.register(flush)


def flush() -> None:
    """Write what is queued, as far as the log's reader takes it within a second. For ends that skip `atexit`."""
    for handler in _queued_handlers():
        handler.flush()


def dropped_lines() -> int:
    """The number of log lines of this process that nobody read in time."""
    return sum(handler.lines.dropped for handler in _queued_handlers())


class _QueuedHandler(logging.Handler):
    """Writes to standard error; `emit` never blocks."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.lines = LineWriter(sys.stderr.fileno(), self._report)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.lines.write(self._encoded(record))
        except Exception:  # noqa: BLE001 - as in every handler of `logging`: a record that cannot be formatted ends nothing
            self.handleError(record)

    def flush(self) -> None:
        self.lines.flush(FLUSH_SECONDS)

    def _encoded(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode(errors="backslashreplace")

    def _report(self, dropped: int) -> bytes:
        message = "%d lines dropped: nobody read the log"
        return self._encoded(log.makeRecord(log.name, logging.WARNING, __file__, 0, message, (dropped,), None))


def _queued_handlers() -> list[_QueuedHandler]:
    return [handler for handler in logging.getLogger().handlers if isinstance(handler, _QueuedHandler)]


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    return getattr(record, "fields", {})


class _AsText(logging.Formatter):
    """Time, process, level and message, then the fields as `name=value`. Control characters are escaped."""

    def __init__(self, process: str) -> None:
        super().__init__(f"%(asctime)s {process} %(levelname)s %(message)s%(fields_text)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        record.message = escaped(record.message)
        record.fields_text = "".join(f" {name}={_plain(value)}" for name, value in _fields(record).items())
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's own name
        return "\n".join(escaped(line) for line in super().formatException(ei).split("\n"))


def escaped(text: str) -> str:
    """The text in one line, with every control character written as in a Python string."""
    return _CONTROL_CHARACTERS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def _plain(value: object) -> str:
    text = str(value)
    if text.isprintable() and text and not set(text) & set(' "='):
        return text
    # A quoted value cannot be mistaken for the next field or the next line. JSON escapes C0 alone.
    return escaped(json.dumps(text, ensure_ascii=False))


class _AsJson(JsonFormatter):
    """One JSON object per line."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        fields = _fields(record)
        record.__dict__.pop("fields", None)
        super().add_fields(log_data, record, message_dict)
        own = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
        }
        rest = dict(log_data)
        log_data.clear()
        log_data.update(own | rest | dict(fields))
