from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import replace
from typing import cast

import pytest

from balancer.errors import JobNotFoundError, JobsUnavailableError, RateLimitedError, TooManyStreamsError
from balancer.jobs import feed as module
from balancer.jobs.feed import JobFeed, Watcher
from balancer.jobs.job import Job
from balancer.jobs.service import JobService, JobStatusView
from balancer.settings.jobs import JobSettings
from tests.support.harness import TIMEOUT


class Looks:
    """Stub of the job service: counts its looks."""

    def __init__(self) -> None:
        self.looks: list[set[str]] = []
        self.views = {f"job-{number}": JobStatusView(job(number), number, 1.0) for number in range(1000)}
        self.failing = False

    async def look(self, job_ids: Collection[str]) -> dict[str, JobStatusView]:
        self.looks.append(set(job_ids))
        if self.failing:
            raise JobsUnavailableError("gone")
        return {job_id: self.views[job_id] for job_id in job_ids if job_id in self.views}


def job(number: int) -> Job:
    return Job(id=f"job-{number}", caller="shop", body={}, characters=1, created=0.0, format="wav")


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    monkeypatch.setattr(module, "LOOK_INTERVAL_SECONDS", 0.01)
    return Looks()


@pytest.fixture
def feed(looks: Looks) -> JobFeed:
    return JobFeed(cast(JobService, looks), JobSettings(event_streams=300, event_streams_per_caller=250))


async def change(watcher: Watcher) -> JobStatusView:
    async with asyncio.timeout(TIMEOUT):
        return await watcher.change()


async def test_one_look_serves_all_watchers(feed: JobFeed, looks: Looks) -> None:
    async def watch(number: int) -> int:
        with feed.watch(f"job-{number % 10}", "shop") as watcher:
            return (await change(watcher)).position

    positions = await asyncio.gather(*(watch(number) for number in range(200)))
    assert positions == [number % 10 for number in range(200)]
    assert len(looks.looks) <= 2
    seen = len(looks.looks)
    for _ in range(5):
        await asyncio.sleep(0.01)
    assert len(looks.looks) <= seen + 1, "nothing is looked up for nobody"


async def test_a_watcher_is_told_of_changes_only(feed: JobFeed, looks: Looks) -> None:
    with feed.watch("job-7", "shop") as watcher:
        first = await change(watcher)
        told = asyncio.create_task(watcher.change())
        seen = len(looks.looks)
        while len(looks.looks) < seen + 3:
            await asyncio.sleep(0.005)
        assert not told.done()
        looks.views["job-7"] = replace(first, position=3)
        assert (await asyncio.wait_for(told, TIMEOUT)).position == 3


async def test_errors_reach_the_watchers(feed: JobFeed, looks: Looks) -> None:
    with feed.watch("unknown", "shop") as watcher, pytest.raises(JobNotFoundError):
        await change(watcher)
    looks.failing = True
    with feed.watch("job-1", "shop") as watcher, pytest.raises(JobsUnavailableError):
        await change(watcher)
    looks.failing = False
    with feed.watch("job-1", "shop") as watcher:
        assert (await change(watcher)).position == 1


async def test_the_number_of_watchers_is_limited_in_all_and_for_each_caller(feed: JobFeed) -> None:
    held = [feed.watch("job-1", "shop") for _ in range(250)]
    for watch in held:
        watch.__enter__()
    with pytest.raises(RateLimitedError), feed.watch("job-1", "shop"):
        pass
    others = [feed.watch("job-1", f"other-{number}") for number in range(50)]
    for watch in others:
        watch.__enter__()
    with pytest.raises(TooManyStreamsError), feed.watch("job-1", "one more"):
        pass
    held.pop().__exit__(None, None, None)
    with feed.watch("job-1", "shop"):
        pass
    for watch in [*held, *others]:
        watch.__exit__(None, None, None)
