from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from balancer.jobs.limits import JobLimits
from balancer.jobs.redis.store import RedisJobStore
from balancer.jobs.sqlite.store import SqliteJobStore
from balancer.jobs.store import JobStore
from balancer.redis.client import RedisClient
from tests.support.jobs import LEASE, Opened


@pytest.fixture(params=["sqlite", "redis"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opened:
    """Opens a store; each call opens the same store again, as another host or process would."""
    server = request.getfixturevalue("redis") if request.param == "redis" else None
    if server is not None:
        server.empty()
    url = None if server is None else server.url

    @asynccontextmanager
    async def open_store(
        clock: Callable[[], float] = lambda: 1000.0, limits: JobLimits | None = None
    ) -> AsyncIterator[JobStore]:
        if url is None:
            store: JobStore = SqliteJobStore(tmp_path, clock, limits)
            try:
                yield store
            finally:
                await store.aclose()
            return
        client = RedisClient(url)
        store = RedisJobStore(client, tmp_path / "spool", lease=LEASE, clock=clock, limits=limits)
        try:
            yield store
        finally:
            await store.aclose()
            await client.aclose()

    return open_store
