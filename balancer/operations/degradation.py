"""Degradation of a host on which speech goes on: folders that cannot be written, and a Redis that is gone.

`/ready` lists it, and stays 200: taking this host out of service would cost speech as well.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from balancer.runtime.thread_pool import ThreadPool

if TYPE_CHECKING:
    from balancer.redis.client import RedisClient

CHECK_INTERVAL_SECONDS = 5.0
MAX_WRITE_SECONDS = 2.0
PROBE_BYTES = 65_536
"""Written to a folder to see whether it has room; more than a disk may grant to a file without a block of its own."""


class Degradation:
    """Looks at the folders now and then. `folders` are what needs them, in words, and where they are."""

    def __init__(self, folders: Mapping[str, Path], redis: RedisClient | None) -> None:
        self._folders = folders
        self._redis = redis
        self._faults: dict[str, str] = {}
        self._pool = ThreadPool("folders", len(folders))

    def close(self) -> None:
        """End the threads; does not wait for them."""
        self._pool.close()

    def reasons(self) -> list[str]:
        """The faults in words, each with its reason."""
        reason = None if self._redis is None else self._redis.unavailable_reason
        return ([] if reason is None else [reason]) + list(self._faults.values())

    async def run(self) -> None:
        """Looks at the folders, until cancelled."""
        while True:
            await asyncio.gather(*(self._look_at(user, folder) for user, folder in self._folders.items()))
            await asyncio.sleep(CHECK_INTERVAL_SECONDS)

    async def _look_at(self, user: str, folder: Path) -> None:
        writing = asyncio.create_task(self._pool.run(lambda: _fault_of(folder)))
        done, _ = await asyncio.wait([writing], timeout=MAX_WRITE_SECONDS)
        if not done:
            self._faults[user] = f"{user}: {folder} does not answer"
        fault = await writing
        if fault is None:
            self._faults.pop(user, None)
        else:
            self._faults[user] = f"{user}: {folder} cannot be written: {fault}"


def _fault_of(folder: Path) -> str | None:
    """Why the folder cannot be written; None if it can, or could be made where it is to be."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing, buffering=0) as file:
            file.write(bytes(PROBE_BYTES))
    except OSError as error:
        return error.strerror or str(error)
    return None
