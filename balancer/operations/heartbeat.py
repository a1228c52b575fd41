"""The heartbeat of a balancer's event loop, in a file that `balancer.launch.watchdog` reads.

The file holds the process id and a count that grows while the event loop runs.
"""

from __future__ import annotations

import asyncio
import os
import struct
from pathlib import Path

BEAT_SECONDS = 0.5

SUFFIX = ".heartbeat"

_FORMAT = struct.Struct("=QQ")


async def beat(folder: Path, program: str) -> None:
    """Counts in the file of `program` in `folder`. Never returns. Raises OSError."""
    descriptor = os.open(folder / f"{program}{SUFFIX}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        count = 0
        while True:
            count += 1
            os.pwrite(descriptor, _FORMAT.pack(os.getpid(), count), 0)
            await asyncio.sleep(BEAT_SECONDS)
    finally:
        os.close(descriptor)


def read_beats(folder: Path) -> dict[int, int]:
    """The count of every process that has a heartbeat file in `folder`, by process id."""
    beats = {}
    for path in folder.glob(f"*{SUFFIX}"):
        try:
            pid, count = _FORMAT.unpack(path.read_bytes())
        except (OSError, struct.error):
            continue  # it is being written
        beats[pid] = count
    return beats
