"""One run: an offer sent through one front while the other is idle, and what the processes took meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

import psutil

from scripts.benchmarks.balancer_comparison.client import UtteranceClient
from scripts.benchmarks.balancer_comparison.offered_load import Offer
from scripts.benchmarks.balancer_comparison.servers import ENGINE, Fronts, Side
from scripts.load.client import SpeechClient
from scripts.load.driver import Driver, LoadLimits, RequestRecord
from worker.cards import CARDS

TIMEOUT = 120.0
"""Seconds until a request counts as failed."""


@dataclass(frozen=True)
class Cpu:
    """Average use during a run, in cores."""

    front: float
    """The front under load: its balancer, or HAProxy."""
    idle_front: float
    """The other one. Chorus's looks at the workers twice a second all the time."""
    workers: float
    client: float
    """This program."""
    others: float
    """Everything else on the machine: near 0 where it is quiet."""


@dataclass(frozen=True)
class Run:
    """What came of one offer through one front."""

    side: Side
    round: int
    characters: int
    """Of all texts."""
    seconds: float
    """From the start to the last answer."""
    records: tuple[RequestRecord, ...]
    cpu: Cpu


def closed(fronts: Fronts, side: Side, offer: Offer, *, clients: int, number: int) -> Run:
    """Let so many clients each send its next text when its last is answered. Raises ServerError."""
    return asyncio.run(_run(fronts, side, offer, number, clients=clients))


def opened(fronts: Fronts, side: Side, offer: Offer, *, rate: float, number: int) -> Run:
    """Send each text when it is due, so many a second on average. Raises ServerError."""
    return asyncio.run(_run(fronts, side, offer, number, arrivals=offer.arrivals(rate)))


async def _run(
    fronts: Fronts,
    side: Side,
    offer: Offer,
    number: int,
    *,
    clients: int = 0,
    arrivals: Iterable[float] | None = None,
) -> Run:
    workers = fronts.workers()
    async with _client(side, fronts.url(side)) as client:
        driver = Driver(client.synthesize, iter(offer.texts), LoadLimits(len(offer.texts), inf), lambda record: None)
        before = _Clocks.now(fronts, side)
        if arrivals is not None:
            await driver.open(arrivals)
        else:
            await driver.closed(clients)
        used = _Clocks.now(fronts, side).since(before, driver.seconds)
    # Chorus would have run its utterance again, HAProxy would have asked another: nobody but the clock would notice.
    if fronts.workers() != workers:
        raise fronts.chorus.failure("a worker ended under the load and was started again")
    return Run(side, number, offer.characters, driver.seconds, tuple(driver.records), used)


def _client(side: Side, url: str) -> SpeechClient:
    if side is Side.HAPROXY:
        return UtteranceClient(url, sample_rate=CARDS[ENGINE].sample_rate, timeout=TIMEOUT)
    return SpeechClient(url, voice=None, audio_format="pcm", api_key=None, timeout=TIMEOUT)


@dataclass(frozen=True)
class _Clocks:
    """CPU seconds so far."""

    front: float
    idle_front: float
    workers: float
    client: float
    machine: float

    @classmethod
    def now(cls, fronts: Fronts, side: Side) -> _Clocks:
        times = psutil.cpu_times()
        [other] = set(Side) - {side}
        return cls(
            front=_taken(fronts.process(side)),
            idle_front=_taken(fronts.process(other)),
            workers=sum(map(_taken, fronts.workers())),
            client=_taken(psutil.Process()),
            # Guests are counted in user and nice already; steal is what others on the same hardware took.
            machine=times.user + times.nice + times.system + times.irq + times.softirq + times.steal,
        )

    def since(self, before: _Clocks, seconds: float) -> Cpu:
        front, idle_front, workers, client, machine = (
            (getattr(self, name) - getattr(before, name)) / seconds for name in self.__dataclass_fields__
        )
        others = max(0.0, machine - front - idle_front - workers - client)
        return Cpu(front, idle_front, workers, client, others)


def _taken(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system
