"""Real encodes in threads. The order is checked by what the queue lets begin, not by time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from balancer.audio.buffers import MemoryBuffer
from balancer.audio.formats import AudioFormat
from balancer.audio.held_audio import HeldAudio
from balancer.errors import QueueFullError
from balancer.scheduling.priority import Priority
from balancer.scheduling.queued_utterance import Terms
from balancer.settings.limits import MemorySettings
from balancer.speech import encoder_pool as module
from balancer.speech.encoder_pool import EncoderPool
from balancer.speech.place import Place
from tests.support.harness import TIMEOUT, until

RATE = 24_000
SECOND = bytes(RATE * 2)
INTERACTIVE, BATCH = Priority.INTERACTIVE, Priority.BATCH


class Gate(MemoryBuffer):
    """PCM whose reading waits for `opened` once it has begun."""

    def __init__(self, seconds: int, begun: Callable[[], None]) -> None:
        super().__init__(SECOND * seconds)
        self.opened = threading.Event()
        self._begun = begun

    def read(self, start: int, size: int) -> bytes:
        self._begun()
        assert self.opened.wait(TIMEOUT)
        return super().read(start, size)


class Encodes:
    """Starts encodes at a pool, and keeps the order in which they began and ended."""

    def __init__(self, pool: EncoderPool) -> None:
        self.pool = pool
        self.order: list[str] = []
        self.gates: dict[str, Gate] = {}

    def start(
        self, name: str, priority: Priority = INTERACTIVE, *, seconds: int = 1, place: Place | None = None
    ) -> asyncio.Task[None]:
        """The caller is the name up to its digits."""
        gate = self.gates[name] = Gate(seconds, lambda: self.order.append(name))
        place = place or Place(Terms(name.rstrip("0123456789"), priority))

        async def encode() -> None:
            await self.pool.encode(gate, RATE, AudioFormat.WAV, 0.5, place)

        return asyncio.create_task(encode())

    async def finish(self, *tasks: asyncio.Task[None]) -> None:
        for gate in self.gates.values():
            gate.opened.set()
        await asyncio.gather(*tasks)


@pytest.fixture
def encodes() -> Encodes:
    return Encodes(EncoderPool(HeldAudio(MemorySettings()), limit=100, threads=1))


def firsts(order: list[str]) -> list[str]:
    """The names in the order in which they first appear."""
    return list(dict.fromkeys(order))


async def test_callers_take_turns_and_interactive_goes_first(encodes: Encodes) -> None:
    first = encodes.start("a0")
    await until(lambda: encodes.order == ["a0"])
    tasks = [encodes.start("c1", BATCH), *(encodes.start(f"a{number}") for number in (1, 2, 3)), encodes.start("b1")]
    await until(lambda: encodes.pool.depth == 5)
    await encodes.finish(first, *tasks)
    order = firsts(encodes.order)
    assert order.index("b1") < order.index("a2"), "a caller's second waits for another's first"
    assert order.index("c1") >= 3, "batch goes last, or in the fourth turn"
    assert (encodes.pool.depth, encodes.pool.running) == (0, 0)


async def test_a_long_encode_lets_another_callers_go_before_it(
    encodes: Encodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SLICE_SECONDS", 0.0)
    long = encodes.start("long", seconds=30)
    await until(lambda: bool(encodes.order))
    short = encodes.start("short")
    encodes.gates["short"].opened.set()
    await until(lambda: encodes.pool.depth == 1)
    encodes.gates["long"].opened.set()
    async with asyncio.timeout(TIMEOUT):
        await short
        assert not long.done()
        await long
    assert encodes.order[-1] == "long", "it had more to read when the short one had read all"


async def test_past_the_limit_encodes_are_refused(encodes: Encodes) -> None:
    pool = encodes.pool = EncoderPool(HeldAudio(MemorySettings()), limit=2, threads=1)
    tasks = [encodes.start("a0")]
    await until(lambda: bool(encodes.order))
    tasks += [encodes.start("a1"), encodes.start("a2")]
    await until(lambda: pool.depth == 2)
    with pytest.raises(QueueFullError):
        await encodes.start("b1")
    await encodes.finish(*tasks)


async def test_cancelling_ends_an_encode_waiting_or_running(encodes: Encodes) -> None:
    running = encodes.start("a0", seconds=1000)
    await until(lambda: bool(encodes.order))
    waiting = encodes.start("a1")
    await until(lambda: encodes.pool.depth == 1)
    waiting.cancel()
    await until(lambda: encodes.pool.depth == 0)
    running.cancel()
    encodes.gates["a0"].opened.set()
    await until(lambda: encodes.pool.running == 0)
    assert encodes.order.count("a0") < 1000
    assert "a1" not in encodes.order
    again = encodes.start("a2")
    await encodes.finish(again)


async def test_an_encode_takes_the_better_place_of_a_request_that_joins(encodes: Encodes) -> None:
    first = encodes.start("a0")
    await until(lambda: bool(encodes.order))
    place = Place(Terms("job", BATCH))
    tasks = [encodes.start("job1", place=place), encodes.start("other1", BATCH), encodes.start("other2", BATCH)]
    tasks = [*tasks, *(encodes.start(f"a{number}") for number in (1, 2))]
    await until(lambda: encodes.pool.depth == 5)
    place.improve(Terms("person", INTERACTIVE))
    await encodes.finish(first, *tasks)
    order = firsts(encodes.order)
    assert order.index("job1") < min(order.index("other1"), order.index("other2"), order.index("a2"))
