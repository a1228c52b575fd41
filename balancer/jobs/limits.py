"""The limits of a store of jobs, in all and for each caller, and the room that its jobs take up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from balancer.settings.jobs import JobSettings

NO_LIMIT = 2**53
"""The largest limit: Lua and JSON know every whole number up to it."""


class StoreFullError(Exception):
    """There is no room for `needed` queued jobs or bytes of audio: `used` of `limit` is taken."""

    def __init__(self, used: int, limit: int, needed: int, *, audio: bool, own: bool) -> None:
        super().__init__(f"{used} of {limit}")
        self.used = used
        self.limit = limit
        self.needed = needed
        self.audio = audio
        """Whether bytes of audio are full, rather than queued jobs."""
        self.own = own
        """Whether it is the caller's own share that is full."""


@dataclass(frozen=True)
class JobLimits:
    """The limits of a store. `share` is the largest part of each limit that one caller may take."""

    queued: int = NO_LIMIT
    audio_bytes: int = NO_LIMIT
    """Bytes of finished jobs' audio, of what is reserved for running ones, and of interrupted ones' segments. Past it
    jobs are neither accepted nor claimed, unless `evicts`."""
    share: float = 1.0
    evicts: bool = False
    """Whether the oldest finished jobs are deleted to make room."""

    @classmethod
    def of(cls, settings: JobSettings) -> Self:
        """The limits that the operator has set."""
        return cls(
            settings.jobs_limit, settings.jobs_bytes, settings.jobs_caller_share, settings.jobs_when_full == "evict"
        )

    @property
    def caller_queued(self) -> int:
        """Queued jobs of one caller."""
        return max(1, int(self.queued * self.share))

    @property
    def caller_audio_bytes(self) -> int:
        """Bytes of one caller's audio."""
        return max(1, int(self.audio_bytes * self.share))

    @property
    def enforced_audio_bytes(self) -> tuple[int, int]:
        """Bytes of all audio, and of one caller's, past which no job is accepted or claimed."""
        return (NO_LIMIT, NO_LIMIT) if self.evicts else (self.audio_bytes, self.caller_audio_bytes)

    def reserved(self, expected_size: int) -> int:
        """Bytes that are reserved for a running job's audio: an expectation too large must not keep it from running."""
        return min(expected_size, self.caller_audio_bytes)


@dataclass(frozen=True)
class Usage:
    """Queued jobs and bytes of audio: of a whole store, and of one caller."""

    queued: int
    audio_bytes: int
    caller_queued: int
    caller_audio_bytes: int

    def check_room(self, new: int, expected_size: int, limits: JobLimits) -> None:
        """Raise StoreFullError if `new` more jobs of the caller exceed the limits.

        There must be room for audio of `expected_size`, that of the smallest one: the others may wait for theirs.
        """
        if new == 0:
            return
        shared = limits.share < 1
        if shared and self.caller_queued + new > limits.caller_queued:
            raise StoreFullError(self.caller_queued, limits.caller_queued, new, audio=False, own=True)
        if self.queued + new > limits.queued:
            raise StoreFullError(self.queued, limits.queued, new, audio=False, own=False)
        self.check_audio(limits.reserved(expected_size), limits)

    def check_audio(self, size: int, limits: JobLimits, counted: int = 0) -> None:
        """Raise StoreFullError if the caller's audio exceeds the limits with `size` bytes where `counted` were.

        Where the limits are reached without it, there is no room for audio of no size, either.
        """
        limit, own_limit = limits.enforced_audio_bytes
        size = max(1, size)
        used, used_by_caller = self.audio_bytes - counted, self.caller_audio_bytes - counted
        shared = limits.share < 1  # else a caller's part is the whole
        if shared and used_by_caller + size > own_limit:
            raise StoreFullError(used_by_caller, own_limit, size, audio=True, own=True)
        if used + size > limit:
            raise StoreFullError(used, limit, size, audio=True, own=False)
