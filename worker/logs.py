"""Logging of balancer and worker: text lines for people, or one JSON object per line.

The values of a line are passed as `extra={"fields": {...}}`; its message need not repeat them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pythonjsonlogger.json import JsonFormatter


def configure(process: str, *, level: str, log_format: str) -> None:
    """Log to standard error from `level` up, as `text` or `json`; every line names `process`."""
    handler = logging.StreamHandler()
    handler.setFormatter(_AsJson(process) if log_format == "json" else _AsText(process))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    return getattr(record, "fields", {})


class _AsText(logging.Formatter):
    """Time, process, level and message, then the fields as `name=value`."""

    def __init__(self, process: str) -> None:
        super().__init__(f"%(asctime)s {process} %(levelname)s %(message)s%(fields_text)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        record.fields_text = "".join(f" {name}={_plain(value)}" for name, value in _fields(record).items())
        return super().formatMessage(record)


def _plain(value: object) -> str:
    text = str(value)
    # A quoted value cannot be mistaken for the next field or the next line.
    return text if text.isprintable() and text and not set(text) & set(' "=') else json.dumps(text, ensure_ascii=False)


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
