"""The valid API keys of a running server: those of the environment, and those of a file that is read when it changes.

A thread looks at the file, so that no request waits for a file system that does not answer. As soon as there is a file,
requests need a key, even while the file has a fault: a slip must not open the server.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

from balancer.access.api_keys import ApiKey, KeysFileError, digest_of, read_keys
from balancer.settings.access import DIGEST_PREFIX
from voices.file_thread import FileThread

log = logging.getLogger(__name__)

LOOK_INTERVAL_SECONDS = 0.25
"""Maximum time until a change of the file takes effect."""
READ_SECONDS = 1.0
"""Time that a request with an unknown key, which may be new, waits for the file."""
RETRY_SECONDS = 1.0
"""Pause before a file that could not be read is read again, though it has not changed."""

_Version = tuple[int, ...]


class KeyRing:
    """The valid API keys, as they were at the last `refresh`. `clock` is monotonic, in seconds."""

    def __init__(
        self, fixed: Iterable[str] = (), file: Path | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`fixed` holds API keys, or their digests prefixed with `sha256:`."""
        digests = [
            key.removeprefix(DIGEST_PREFIX) if key.startswith(DIGEST_PREFIX) else digest_of(key) for key in fixed
        ]
        self._fixed = tuple(ApiKey(name=f"key-{digest[:8]}", digest=digest) for digest in digests)
        self._file = file
        self._clock = clock
        self._version: _Version | None = None
        self._fault: str | None = None
        """Why the file, in its present version, cannot be used."""
        self._retry_at = 0.0
        self._from_file: tuple[ApiKey, ...] = ()
        self._file_existed = False
        self._thread = FileThread("api keys", self.refresh, interval=LOOK_INTERVAL_SECONDS)
        self._read: Future[None] | None = None
        self.refresh()

    def watch(self) -> None:
        """Refresh every LOOK_INTERVAL_SECONDS from now on, in a thread."""
        if self._file is not None:
            self._thread.start()

    @property
    def key_required(self) -> bool:
        """Whether requests need an API key. Once a file has existed it stays true, even if the file is deleted."""
        return bool(self._fixed) or self._file_existed or self._fault is not None

    def find(self, offered: str) -> ApiKey | None:
        """The valid API key that equals `offered`; None if there is none."""
        digest = digest_of(offered)
        found = None
        # All keys are compared, each in constant time, so that the time taken reveals nothing about them.
        for key in self.keys:
            if hmac.compare_digest(digest, key.digest):
                found = key
        return found

    @property
    def keys(self) -> tuple[ApiKey, ...]:
        """All valid API keys."""
        return (*self._fixed, *self._from_file)

    async def find_or_read(self, offered: str) -> ApiKey | None:
        """The same, also of a key that was added just now. Waits READ_SECONDS at most, and for an unknown key only."""
        if (found := self.find(offered)) is None and offered and self._file is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(READ_SECONDS):
                    await asyncio.shield(asyncio.wrap_future(self._start_read()))
            found = self.find(offered)
        return found

    def _start_read(self) -> Future[None]:
        """Requests that come while a read is due share it."""
        if self._read is None or self._read.done() or self._read.running():
            self._read = self._thread.submit(self.refresh)
        return self._read

    def refresh(self) -> None:
        """Read the file again if it has changed, or could not be read. Until it can, the previous keys stay valid.

        Blocks.
        """
        if self._file is None:
            return
        version, fault = self._stat(self._file)
        due = self._fault is not None and self._clock() >= self._retry_at
        if version == self._version and fault in (None, self._fault) and not due:
            return
        if version is not None:
            self._file_existed = True
        keys: tuple[ApiKey, ...] = ()
        if fault is None:
            try:
                keys = read_keys(self._file)
            except KeysFileError as error:
                fault = str(error)
        if fault is not None:
            if fault != self._fault:
                log.error("requests need a key that was valid before: %s", fault)
            self._fault, self._retry_at = fault, self._clock() + RETRY_SECONDS
        else:
            self._fault, self._from_file = None, keys
            log.info("loaded %d API keys from %s", len(keys), self._file)
        self._version = version

    @staticmethod
    def _stat(file: Path) -> tuple[_Version | None, str | None]:
        """Numbers that differ when the file has changed, None without a file; and why it cannot be seen, if so."""
        try:
            status = file.stat()
        except FileNotFoundError:
            return None, None
        except OSError as error:
            return None, f"the API keys in {file} cannot be read: {error.strerror}"
        return (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino), None
