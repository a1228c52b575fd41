"""The segments of one running job, as the speech service keeps them in the store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from balancer.audio.buffers import AudioBuffer
from balancer.jobs.job import Job
from balancer.jobs.store import JobSegments

T = TypeVar("T")


class ClaimLostError(Exception):
    """The job was cancelled, or another host runs it."""


class Patience(Protocol):
    """Calls a store again while it cannot be used."""

    async def __call__(self, call: Callable[[], Awaitable[T]]) -> T:
        """The result of `call`, which is repeated until the store answers."""


class KeptSegments:
    """A SegmentKeeper for a claimed job. The methods raise ClaimLostError, `keep` also StoreFullError.

    `until_answered` calls the store of `segments`; `stops` says whether this process is to begin no further segment.
    """

    def __init__(self, job: Job, segments: JobSegments, until_answered: Patience, stops: Callable[[], bool]) -> None:
        self.job = job
        """The job, with the segments that are finished."""
        self.speaking = True
        """Whether segments are still to be spoken."""
        self._segments = segments
        self._until_answered = until_answered
        self._stops = stops

    @property
    def stops(self) -> bool:
        """See SegmentKeeper."""
        return self._stops()

    async def begin(self, segmentation: str, total: int) -> Collection[int]:
        """See SegmentKeeper."""
        begun = await self._until_answered(lambda: self._segments.begin(self.job, segmentation, total))
        if begun is None:
            raise ClaimLostError
        self.job, kept = begun
        return kept

    async def keep(self, number: int, pcm: AudioBuffer) -> None:
        """See SegmentKeeper."""
        if not await self._until_answered(lambda: self._segments.keep(self.job, number, pcm)):
            raise ClaimLostError
        self.job = self.job.with_segments_done(self.job.segments_done + 1)

    async def files(self) -> Sequence[Path]:
        """See SegmentKeeper."""
        self.speaking = False
        return await self._until_answered(lambda: self._segments.files(self.job))
