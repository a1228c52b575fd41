"""File descriptors that a process inherits and has no business with."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

STANDARD_DESCRIPTORS = 3


def close_inherited(keep: Collection[int] = ()) -> None:
    """Close every descriptor but the standard ones and `keep`, at the very start of a program.

    supervisord holds the listening sockets for the balancer, and passes them on to all of its programs. In a program
    that never accepts from them, they would keep the port open after the server has ended.
    """
    for descriptor in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if descriptor >= STANDARD_DESCRIPTORS and descriptor not in keep:
            with suppress(OSError):  # that of the listing itself
                os.close(descriptor)
