"""The voices of a folder for an event loop: answers from memory, and reads the folder in a thread of its own."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

from voices.file_thread import FileThread
from voices.registry import POLL_INTERVAL_SECONDS, UNKNOWN_NAME_POLL_SECONDS, LiveRegistry, Registry, Voice

RESCAN_SECONDS = 2.0
"""Time that a request for an unknown voice waits for the folder."""


class WatchedRegistry(LiveRegistry):
    """A LiveRegistry whose methods never wait for the folder, but for `rescan`, `reload` and `current_fingerprint`.

    The folder is scanned every POLL_INTERVAL_SECONDS. A folder that does not answer slows only those three.
    """

    def __init__(self, folder: Path) -> None:
        """Reads the folder. Raises VoiceError if it cannot be read."""
        super().__init__(folder)
        self._files = FileThread("voices", lambda: self._refresh(0.0), interval=POLL_INTERVAL_SECONDS)
        self._rescan: Future[None] | None = None

    @property
    def current(self) -> Registry:
        """The voices of the last scan."""
        self._files.start()
        return self._registry

    def resolve(self, name: str) -> Voice:
        """Returns the voice with that name or alias in the last scan. Raises UnknownVoiceError."""
        return self.current.resolve(name)

    async def rescan(self) -> None:
        """Scans the folder now, since a voice is missing that may be new. Waits for RESCAN_SECONDS at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(RESCAN_SECONDS):
                await asyncio.shield(asyncio.wrap_future(self._start_rescan()))

    def rescan_blocking(self) -> None:
        """The same for a thread that may wait."""
        with suppress(TimeoutError):
            self._start_rescan().result(RESCAN_SECONDS)

    async def reload(self) -> None:
        """Scans the folder, which has just been changed. Waits for RESCAN_SECONDS at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(RESCAN_SECONDS):
                await self._files.run(self._refresh, 0.0)

    async def current_fingerprint(self, voice: Voice) -> tuple[int, ...]:
        """Returns `fingerprint(voice)`. Raises VoiceError."""
        return await self._files.run(self.fingerprint, voice)

    def _start_rescan(self) -> Future[None]:
        """Requests that come while a scan is due share it."""
        if self._rescan is None or self._rescan.done() or self._rescan.running():
            self._rescan = self._files.submit(self._refresh, UNKNOWN_NAME_POLL_SECONDS)
        return self._rescan
