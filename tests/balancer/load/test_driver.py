import asyncio
import itertools

from balancer.load.client import SpeechResult
from balancer.load.driver import Driver, LoadLimits, RequestRecord
from balancer.load.texts import Text


def driver(synthesize: object, requests: int) -> tuple[Driver, list[RequestRecord]]:
    texts = itertools.repeat(Text("Hello.", None))
    records: list[RequestRecord] = []
    return Driver(synthesize, texts, LoadLimits(requests, 60), records.append), records  # type: ignore[arg-type]


async def test_a_request_without_an_answer_has_the_age_since_it_was_due() -> None:
    begun = asyncio.Event()

    async def never(_: str) -> SpeechResult:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    run, records = driver(never, 1)
    task = asyncio.create_task(run.open([0.0]))
    await begun.wait()
    (age,) = run.ages()
    assert 0 <= age < 60
    run.stop()
    run.stop()
    await task
    assert (records, run.outstanding) == ([], 1)


async def test_the_first_sound_counts_from_the_time_at_which_the_request_was_due() -> None:
    async def hear(_: str) -> SpeechResult:
        return SpeechResult(None, 1.0, first_sound=0.25, gaps=2)

    run, records = driver(hear, 3)
    await run.closed(1)
    assert [record.gaps for record in records] == [2, 2, 2]
    assert all(record.first_sound == record.lag + 0.25 for record in records)
    assert run.ages() == []
