"""Looks at places in a long queue share one reading of it."""

from __future__ import annotations

from pathlib import Path

from balancer.jobs.sqlite import places
from balancer.jobs.sqlite.store import SqliteJobStore
from tests.support.jobs import job


async def test_a_long_queue_is_not_read_at_each_look(tmp_path: Path) -> None:
    store = SqliteJobStore(tmp_path)
    many = [job(number) for number in range(2 * places.MAX_COUNTED)]
    await store.add(many)
    await store.places.ahead(many[-1])
    await store.cancel("job-0")
    assert (await store.places.ahead(many[-1])).jobs == len(many) - 1, "from the reading of the look before"
    await store.aclose()
