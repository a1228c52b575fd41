"""Jobs as the service hands them to the store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from balancer.errors import JobsUnavailableError
from balancer.jobs.job import Job
from balancer.jobs.outage_log import OutageLog
from balancer.jobs.service import JobOwner, JobService
from balancer.jobs.sqlite.store import SqliteJobStore
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


def service_on(store: JobStore) -> JobService:
    """The service on a store."""
    return JobService(
        store,
        Throughput(),
        Executor(),
        JobSettings(),
        sample_rate=SAMPLE_RATE,
        max_encoded_bytes=2**30,
        outage=OutageLog(),
    )


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
    service = service_on(cast(JobStore, store))
    await service.accept([QueueBody.model_validate({"text": "Ten chars."} | fields)], JobOwner("somebody", None))
    assert [job.expected_size for job in store.jobs] == [size]


async def test_clients_are_not_told_why_the_store_cannot_be_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    store = SqliteJobStore(tmp_path / "file" / "jobs")
    service, owner = service_on(store), JobOwner("somebody", None)
    body = QueueBody.model_validate({"text": "Hello."})
    for call in (
        service.accept([body], owner),
        service.status("job", owner),
        service.look(["job"]),
        service.cancel("job", owner),
        service.audio("job", owner),
    ):
        with pytest.raises(JobsUnavailableError) as refused:
            await call
        assert refused.value.message == "jobs cannot be accepted or looked up at the moment; accepted jobs are not lost"
    assert [str(tmp_path) in record.getMessage() for record in caplog.records] == [True], "once, with the cause"
