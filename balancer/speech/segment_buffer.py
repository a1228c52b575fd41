"""The segments of a streamed text: they come in any order, whole or in pieces, and are sent in theirs."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class SegmentBuffer(Generic[T]):
    """Whoever adds a segment waits while more than `max_ahead` seconds of audio are finished and not sent.

    So a client that does not read has few segments made. The next one to be sent is never waited for: segments are
    begun in order, and each is there before its adder waits.
    """

    def __init__(self, max_ahead: float) -> None:
        self._max_ahead = max_ahead
        self._finished: dict[int, tuple[T, float]] = {}
        self._pieces: defaultdict[int, deque[bytes]] = defaultdict(deque)
        """Of the segments that are being made."""
        self._next = 0
        self._unsent = 0.0
        self._taken = 0.0
        """Length of the segment that was taken last, until it has been sent."""
        self._error: BaseException | None = None
        self._changed = asyncio.Event()

    @property
    def unsent(self) -> float:
        """Seconds of audio that are finished and not sent."""
        return self._unsent

    def extend(self, number: int, piece: bytes) -> None:
        """Add a piece of segment `number`, which is being made."""
        self._pieces[number].append(piece)
        if number == self._next:
            self._notify()

    async def add(self, number: int, segment: T, seconds: float) -> None:
        """Add segment `number`, which lasts so long, and wait until another may be made.

        Its pieces that were not taken are dropped: the segment has them.
        """
        self._pieces.pop(number, None)
        self._finished[number] = segment, seconds
        self._unsent += seconds
        self._notify()
        while self.full:
            await self._changed.wait()

    @property
    def full(self) -> bool:
        """Whether no further segments are made until something has been sent."""
        return self._unsent > self._max_ahead

    def fail(self, error: BaseException) -> None:
        """There will be no further segments."""
        self._error = error
        self._notify()

    def clear(self) -> None:
        """Drop all that was not taken."""
        self._finished.clear()
        self._pieces.clear()

    async def take(self) -> bytes | T:
        """A further piece of the next segment in order, or that segment once it is finished.

        Raises the error, if there is neither.
        """
        while self._next not in self._finished:
            if pieces := self._pieces.get(self._next):
                return pieces.popleft()
            if self._error is not None:
                raise self._error
            await self._changed.wait()
        segment, seconds = self._finished.pop(self._next)
        self._next += 1
        self._taken = seconds
        return segment

    async def changed(self, seconds: float) -> None:
        """Wait until something changes, at most so long. Raises the error, if there is one."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        if self._error is not None:
            raise self._error

    def sent(self) -> None:
        """The segment that was taken last has been sent."""
        self._unsent -= self._taken
        self._taken = 0.0
        self._notify()

    def _notify(self) -> None:
        """Wake everyone who waits."""
        self._changed.set()
        self._changed = asyncio.Event()
