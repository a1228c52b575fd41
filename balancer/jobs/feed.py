"""The feed of event streams, and of those who listen to jobs: one look at the store for all, however many watch."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from balancer.errors import ChorusError, JobNotFoundError, RateLimitedError, TooManyStreamsError
from balancer.jobs.service import JobService, JobStatusView
from balancer.settings.jobs import JobSettings

LOOK_INTERVAL_SECONDS = 0.25
"""Pause between two looks, unless there are new watchers."""
MIN_PAUSE_SECONDS = 0.02
"""Pause between two looks at least; longer while looks take long, so that they take a fifth of the time at most."""
RETRY_SECONDS = 10.0


class Watcher:
    """One stream's view of a job."""

    def __init__(self, job_id: str, caller: str) -> None:
        self.job_id = job_id
        self.caller = caller
        self._seen: JobStatusView | ChorusError | None = None
        self._changed = asyncio.Event()

    async def change(self) -> JobStatusView:
        """The latest view, once it differs from the one before. Raises JobNotFoundError, JobsUnavailableError."""
        await self._changed.wait()
        self._changed.clear()
        if isinstance(self._seen, ChorusError):
            raise self._seen
        assert self._seen is not None  # noqa: S101 - set before the event
        return self._seen

    def show(self, view: JobStatusView | ChorusError) -> bool:
        """Take in what a look has found; returns whether it is new."""
        if view == self._seen:
            return False
        self._seen = view
        self._changed.set()
        return True


class JobFeed:
    """Looks at the watched jobs while there are any; `settings` limits the watchers, in all and of each caller."""

    def __init__(self, job_service: JobService, settings: JobSettings) -> None:
        self._job_service = job_service
        self._limit = settings.event_streams
        self._caller_limit = settings.event_streams_per_caller
        self._callers: Counter[str] = Counter()
        self._watchers: set[Watcher] = set()
        self._task: asyncio.Task[None] | None = None
        self._new_watcher = asyncio.Event()

    @contextmanager
    def watch(self, job_id: str, caller: str) -> Iterator[Watcher]:
        """Watch a job within the block. Raises RateLimitedError, TooManyStreamsError."""
        if self._callers[caller] >= self._caller_limit:
            raise RateLimitedError(
                f"you have {self._caller_limit} event streams open; close some of them, or poll the status instead",
                code="too_many_streams",
                retry_after=RETRY_SECONDS,
            )
        if len(self._watchers) >= self._limit:
            raise TooManyStreamsError(
                f"{self._limit} event streams are open already; poll the status instead", retry_after=RETRY_SECONDS
            )
        watcher = Watcher(job_id, caller)
        self._watchers.add(watcher)
        self._callers[caller] += 1
        self._new_watcher.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look_while_watched())
        try:
            yield watcher
        finally:
            self._watchers.remove(watcher)
            self._callers[caller] -= 1
            if not self._callers[caller]:
                del self._callers[caller]

    async def _look_while_watched(self) -> None:
        loop = asyncio.get_running_loop()
        views: dict[str, JobStatusView] = {}
        while watchers := list(self._watchers):
            self._new_watcher.clear()
            started = loop.time()
            job_ids = {watcher.job_id for watcher in watchers}
            failure: ChorusError | None = None
            before = views
            try:
                found = await self._job_service.look(job_ids)
                # An equal view stays the same object, so that it is compared, and told of, once for all watchers.
                views = {id_: before[id_] if view == before.get(id_) else view for id_, view in found.items()}
            except ChorusError as error:
                failure = error
            took = loop.time() - started
            gone = JobNotFoundError("there is no such job; ended jobs are deleted after some days")
            for watcher in watchers:
                if watcher.show(views.get(watcher.job_id, gone) if failure is None else failure):
                    await asyncio.sleep(0)  # other requests have their turn before the next watcher
            pause = max(MIN_PAUSE_SECONDS, 4 * took)
            await asyncio.sleep(pause)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_INTERVAL_SECONDS - pause):
                    await self._new_watcher.wait()
