"""Notifications of systemd and its journal, where systemd runs this host's server.

The protocol of `sd_notify` and the prefixes of `sd-daemon` are a line each: https://www.freedesktop.org/software/systemd/man.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress

PRIORITIES = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}
"""Priorities of the journal, by the names of levels."""


def is_notified(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether systemd has asked to be told of this server's state."""
    return bool(environ.get("NOTIFY_SOCKET"))


def notify(*assignments: str, environ: Mapping[str, str] = os.environ) -> None:
    """Tell systemd assignments such as `READY=1`, if it has asked for them. Never fails."""
    path = environ.get("NOTIFY_SOCKET", "")
    if path:
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.sendto("\n".join(assignments).encode(), f"\0{path[1:]}" if path.startswith("@") else path)


def writes_to_journal(descriptor: int, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether what is written to the descriptor goes to systemd's journal."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def with_priority(line: str, level: str) -> str:
    """The line with the prefix from which the journal takes its priority."""
    return f"<{PRIORITIES.get(level, PRIORITIES['info'])}>{line}"
