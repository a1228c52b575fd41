"""Callers take turns in both job stores, and their places in the queue are known."""

from __future__ import annotations

from balancer.jobs.job import Job
from balancer.jobs.sqlite import places
from balancer.jobs.store import JobStore, QueuedAhead
from tests.support.jobs import ERROR, RESULT, Opened, found, job


def jobs_of(caller: str, count: int) -> list[Job]:
    return [job(number, id=f"{caller}-{number}", caller=caller) for number in range(count)]


async def claimed(store: JobStore, count: int) -> list[str]:
    return [found(await store.claims.claim_next()).id for _ in range(count)]


async def test_a_batch_of_one_caller_delays_others_by_a_turn(opened: Opened) -> None:
    async with opened() as store:
        await store.add(jobs_of("many", 300))
        assert await claimed(store, 3) == ["many-0", "many-1", "many-2"]
        await store.add(jobs_of("few", 2))
        first, second = await store.places.ahead_all(jobs_of("few", 2))
        assert (first, second) == (QueuedAhead(1, 10), QueuedAhead(3, 30))
        assert await claimed(store, 5) == ["many-3", "few-0", "many-4", "few-1", "many-5"]


async def test_a_caller_that_adds_jobs_one_by_one_has_every_other_turn(opened: Opened) -> None:
    async with opened() as store:
        await store.add(jobs_of("many", 4))
        order = []
        for number in range(4):
            await store.add([job(number, id=f"one-{number}", caller="one")])
            order += await claimed(store, 2)
        assert order == [id_ for number in range(4) for id_ in (f"many-{number}", f"one-{number}")]


async def test_turns_survive_a_restart(opened: Opened) -> None:
    async with opened() as store:
        await store.add(jobs_of("many", 50))
        for id_ in await claimed(store, 10):
            await store.claims.finish(found(await store.get(id_)), RESULT)
    async with opened() as store:
        await store.add(jobs_of("few", 1))
        assert await claimed(store, 2) == ["many-10", "few-0"]


async def test_a_job_that_is_retried_keeps_its_turn(opened: Opened) -> None:
    async with opened() as store:
        await store.add(jobs_of("many", 3))
        await store.claims.retry_later(found(await store.claims.claim_next()), ERROR, 0.0)
        assert await claimed(store, 2) == ["many-0", "many-1"]


async def test_a_caller_runs_no_more_jobs_than_its_concurrency(opened: Opened) -> None:
    async with opened() as store:
        limited = [one.model_copy(update={"concurrency": 2}) for one in jobs_of("limited", 5)]
        await store.add(limited)
        await store.add(jobs_of("other", 2))
        assert await claimed(store, 4) == ["limited-0", "other-0", "limited-1", "other-1"]
        assert await store.claims.claim_next() is None
        await store.claims.finish(found(await store.get("limited-0")), RESULT)
        assert await claimed(store, 1) == ["limited-2"]
        assert await store.claims.claim_next() is None


async def test_places_in_a_long_queue(opened: Opened) -> None:
    async with opened() as store:
        many = jobs_of("many", 2 * places.MAX_COUNTED)
        await store.add(many)
        assert await store.places.ahead(many[-1]) == QueuedAhead(len(many) - 1, (len(many) - 1) * 10)
        await store.add(jobs_of("few", 1))
        assert await store.places.ahead(jobs_of("few", 1)[0]) == QueuedAhead(1, 10)


async def test_a_look_sees_the_places_of_all_jobs(opened: Opened) -> None:
    async with opened() as store:
        await store.add(many := jobs_of("many", 5))
        await store.add(few := jobs_of("few", 2))
        claim = found(await store.claims.claim_next())
        seen = await store.look([job.id for job in (*many, *few)] + ["unknown"])
        assert seen.keys() == {job.id for job in (*many, *few)}
        assert seen.pop(claim.id) == (claim, QueuedAhead(0, 0))
        for job, ahead in seen.values():
            assert ahead == await store.places.ahead(job)
