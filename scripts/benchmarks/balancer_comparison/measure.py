"""One run: a load sent through one balancer while the other is idle, and the CPU time of all processes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

import psutil

from balancer.load.client import SpeechClient
from balancer.load.driver import Driver, LoadLimits, RequestRecord
from scripts.benchmarks.balancer_comparison.client import UtteranceClient
from scripts.benchmarks.balancer_comparison.offered_load import OfferedLoad
from scripts.benchmarks.balancer_comparison.servers import ENGINE, Balancer, BalancerPair
from scripts.support.noise import machine_cpu_seconds
from worker.cards import CARDS

TIMEOUT = 120.0
"""Seconds after which a request counts as failed."""


@dataclass(frozen=True)
class CpuUse:
    """Average number of cores that were in use during a run."""

    balancer: float
    """By the balancer under load."""
    idle_balancer: float
    """By the other balancer. Chorus polls its workers twice a second, also when it has no load."""
    workers: float
    client: float
    """By this program."""
    others: float
    """By all other programs: near 0 on a quiet machine."""


@dataclass(frozen=True)
class LoadRun:
    """The result of one load sent through one balancer."""

    balancer: Balancer
    round: int
    characters: int
    """Characters of all texts."""
    seconds: float
    """From the start to the last answer."""
    records: tuple[RequestRecord, ...]
    cpu: CpuUse


def run_closed_loop(
    pair: BalancerPair, balancer: Balancer, load: OfferedLoad, *, clients: int, round_number: int
) -> LoadRun:
    """Have each client send its next text when its last one is answered. Raises ServerError."""
    return asyncio.run(_run(pair, balancer, load, round_number, clients=clients))


def run_open_loop(
    pair: BalancerPair, balancer: Balancer, load: OfferedLoad, *, rate: float, round_number: int
) -> LoadRun:
    """Send each text when it is due, `rate` per second on average. Raises ServerError."""
    return asyncio.run(_run(pair, balancer, load, round_number, arrivals=load.arrivals(rate)))


async def _run(
    pair: BalancerPair,
    balancer: Balancer,
    load: OfferedLoad,
    round_number: int,
    *,
    clients: int = 0,
    arrivals: Iterable[float] | None = None,
) -> LoadRun:
    workers = pair.workers()
    async with _client(balancer, pair.url(balancer)) as client:
        limits = LoadLimits(len(load.texts), inf)
        driver = Driver(client.synthesize, iter(load.texts), limits, lambda record: None)
        before = _CpuSeconds.now(pair, balancer)
        if arrivals is not None:
            await driver.open(arrivals)
        else:
            await driver.closed(clients)
        used = _CpuSeconds.now(pair, balancer).use_since(before, driver.seconds)
    # Both balancers retry the utterances of a worker that has ended: only the times would show it.
    if pair.workers() != workers:
        raise pair.chorus.failure("a worker ended under load and was started again")
    return LoadRun(balancer, round_number, load.characters, driver.seconds, tuple(driver.records), used)


def _client(balancer: Balancer, url: str) -> SpeechClient:
    if balancer is Balancer.HAPROXY:
        return UtteranceClient(url, sample_rate=CARDS[ENGINE].sample_rate, timeout=TIMEOUT)
    return SpeechClient(url, voice=None, audio_format="pcm", api_key=None, timeout=TIMEOUT)


@dataclass(frozen=True)
class _CpuSeconds:
    """CPU seconds so far."""

    balancer: float
    idle_balancer: float
    workers: float
    client: float
    machine: float

    @classmethod
    def now(cls, pair: BalancerPair, balancer: Balancer) -> _CpuSeconds:
        machine = machine_cpu_seconds()
        [idle] = set(Balancer) - {balancer}
        return cls(
            balancer=_cpu_seconds(pair.process(balancer)),
            idle_balancer=_cpu_seconds(pair.process(idle)),
            workers=sum(map(_cpu_seconds, pair.workers())),
            client=_cpu_seconds(psutil.Process()),
            machine=machine,
        )

    def use_since(self, before: _CpuSeconds, seconds: float) -> CpuUse:
        balancer, idle_balancer, workers, client, machine = (
            (getattr(self, name) - getattr(before, name)) / seconds for name in self.__dataclass_fields__
        )
        others = max(0.0, machine - balancer - idle_balancer - workers - client)
        return CpuUse(balancer, idle_balancer, workers, client, others)


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system
