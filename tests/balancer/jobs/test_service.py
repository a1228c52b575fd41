"""Jobs as the service hands them to the store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest

from balancer.jobs.job import Job
from balancer.jobs.service import JobOwner, JobService
from balancer.jobs.store import JobStore, QueuedAhead
from balancer.requests.bodies import QueueBody
from balancer.settings.jobs import JobSettings

SAMPLE_RATE = 24_000


class Store:
    """Stub of a store."""

    max_result_bytes = 2**32

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.places = Places()

    async def add(self, jobs: Sequence[Job]) -> list[Job]:
        self.jobs += jobs
        return list(jobs)


class Places:
    """Stub of the places of queued jobs."""

    async def ahead_all(self, jobs: Sequence[Job]) -> list[QueuedAhead]:
        return [QueuedAhead(0, 0)] * len(jobs)


class Throughput:
    characters_per_second = 1000.0

    def audio_seconds(self, characters: int) -> float:
        return 0.1 * characters


class Executor:
    def wake(self) -> None:
        pass

    def cancel(self, job_id: str) -> None:
        pass


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({"format": "wav"}, 48_000),
        ({"format": "pcm", "speed": 0.25}, 4 * 48_000),
        ({"format": "mp3", "speed": 2}, 48_000),  # of the segments, which are kept as PCM until the file is made
    ],
)
async def test_a_job_is_stored_with_the_expected_size_of_its_audio(fields: dict[str, object], size: int) -> None:
    store = Store()
    service = JobService(
        cast(JobStore, store),
        Throughput(),
        Executor(),
        JobSettings(),
        sample_rate=SAMPLE_RATE,
        max_encoded_bytes=2**30,
    )
    await service.accept([QueueBody.model_validate({"text": "Ten chars."} | fields)], JobOwner("somebody", None))
    assert [job.expected_size for job in store.jobs] == [size]
