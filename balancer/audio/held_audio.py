"""Holds the audio of requests under way: in memory within a budget, else in temporary files within another.

Both budgets bound all callers together and each caller, so that nobody takes all of one. What is past the budget of
memory, or larger than MAX_IN_MEMORY_BYTES, goes to a file; what is past that of files is refused.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from typing import IO

from balancer.audio.buffers import AudioBuffer, FileBuffer, MemoryBuffer
from balancer.errors import MemoryFullError
from balancer.runtime.thread_pool import PoolFullError, ThreadPool
from balancer.settings.limits import MemorySettings

MAX_IN_MEMORY_BYTES = 2 * 2**20
"""Larger audio is held in a file: at 24 kHz, three quarters of a minute of PCM."""
RETRY_SECONDS = 5.0
"""Retry-After of a request that was refused for want of room."""
FILE_THREADS = 4


class Budget:
    """Bytes that callers hold: at most `limit` together, and one caller at most `share` of it. Thread-safe."""

    def __init__(self, limit: int, share: float) -> None:
        self._limit = limit
        self._caller_limit = int(limit * share)
        # Reentrant: the garbage collector may call `release` within either method.
        self._lock = threading.RLock()
        self._callers: dict[str, int] = {}
        self._taken = 0

    @property
    def limit(self) -> int:
        """Bytes that all callers may hold together."""
        return self._limit

    @property
    def caller_limit(self) -> int:
        """Bytes that one caller may hold."""
        return self._caller_limit

    @property
    def taken(self) -> int:
        """Bytes that all callers hold."""
        return self._taken

    def take(self, caller: str, size: int) -> bool:
        """Count `size` bytes more for the caller, if they fit."""
        with self._lock:
            if self._taken + size > self._limit or self._callers.get(caller, 0) + size > self._caller_limit:
                return False
            self._taken += size
            self._callers[caller] = self._callers.get(caller, 0) + size
            return True

    def release(self, caller: str, size: int) -> None:
        """Count `size` bytes less for the caller."""
        with self._lock:
            self._taken -= size
            self._callers[caller] -= size
            if self._callers[caller] <= 0:
                del self._callers[caller]


class _Claim:
    """Bytes that a buffer has of a budget; they are given back when the buffer, which owns the claim, is gone.

    `weakref.finalize` would do the same, and take five times as long.
    """

    __slots__ = ("_budget", "_caller", "_size")

    def __init__(self, budget: Budget, caller: str, size: int) -> None:
        self._budget = budget
        self._caller = caller
        self._size = size

    def __del__(self) -> None:
        self._budget.release(self._caller, self._size)


class HeldAudio:
    """Makes buffers and counts them; each is counted until the last request that reads it has let it go."""

    def __init__(self, settings: MemorySettings) -> None:
        self.memory = Budget(settings.audio_memory_bytes, settings.caller_share)
        self.files = Budget(settings.spool_bytes, settings.caller_share)
        self._pool = ThreadPool("files", FILE_THREADS)

    async def hold(self, audio: AudioBuffer, caller: str) -> AudioBuffer:
        """The same audio, counted for the caller: `audio` itself or a copy in a temporary file.

        Raises MemoryFullError.
        """
        if not audio.in_memory or self._hold_in_memory(audio, caller):
            return audio
        return await self._in_thread(lambda: self._copy_to_file(audio, caller))

    async def assemble(self, caller: str, fill: Callable[[IO[bytes]], None]) -> AudioBuffer:
        """The same as `write`, in a thread."""
        return await self._in_thread(lambda: self.write(caller, fill))

    async def _in_thread(self, work: Callable[[], AudioBuffer]) -> AudioBuffer:
        try:
            return await self._pool.run(work)
        except PoolFullError as error:
            raise MemoryFullError(
                "too many temporary files are being written; try again later", retry_after=RETRY_SECONDS
            ) from error

    def write(self, caller: str, fill: Callable[[IO[bytes]], None]) -> AudioBuffer:
        """The audio that `fill` writes to the file it is given. Blocks. Raises MemoryFullError and as `fill`."""
        try:
            with tempfile.SpooledTemporaryFile(max_size=MAX_IN_MEMORY_BYTES) as file:
                fill(file)
                size = file.seek(0, os.SEEK_END)
                if size <= MAX_IN_MEMORY_BYTES:
                    file.seek(0)
                    audio = MemoryBuffer(file.read())
                    if self._hold_in_memory(audio, caller):
                        return audio
                file.rollover()
                file.flush()
                return self._hold_file(file.fileno(), size, caller)
        except OSError as error:
            raise MemoryFullError(
                f"no temporary file can be written for the audio: {error.strerror or error}", retry_after=RETRY_SECONDS
            ) from error

    async def read(self, audio: AudioBuffer, start: int, size: int) -> bytes:
        """A piece of the audio, read in a thread if that may block. Raises OSError."""
        if audio.in_memory:
            return audio.read(start, size)
        return await self._pool.run(lambda: audio.read(start, size))

    def close(self) -> None:
        """End the threads; does not wait for them."""
        self._pool.close()

    def _copy_to_file(self, audio: AudioBuffer, caller: str) -> AudioBuffer:
        def fill(file: IO[bytes]) -> None:
            for piece in audio.pieces():
                file.write(piece)

        return self.write(caller, fill)

    def _hold_in_memory(self, audio: AudioBuffer, caller: str) -> bool:
        size = len(audio)
        if size > MAX_IN_MEMORY_BYTES or not self.memory.take(caller, size):
            return False
        audio.claims.append(_Claim(self.memory, caller, size))
        return True

    def _hold_file(self, descriptor: int, size: int, caller: str) -> AudioBuffer:
        if not self.files.take(caller, size):
            raise MemoryFullError(
                "the room for audio, yours or that of all, is in use; read the answers to earlier requests first",
                retry_after=RETRY_SECONDS,
            )
        audio = FileBuffer(os.dup(descriptor), 0, size)
        audio.claims.append(_Claim(self.files, caller, size))
        return audio
