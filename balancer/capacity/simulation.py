"""Simulates requests to hosts, and finds the knee on paper. Pure: the same seed gives the same result."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from random import Random

import numpy as np

from balancer.capacity.routing import LeastConnections, Router
from balancer.capacity.search import Search, TriedRate
from balancer.capacity.service_model import ServiceModel
from balancer.capacity.simulated_host import TOLERANCE, HostSize, SimulatedHost, SimulatedRequest
from balancer.capacity.target import Target
from balancer.load.arrivals import poisson

AGENT_INTERVAL_SECONDS = 0.05
"""As in deploy/haproxy.cfg: `agent-inter 50ms`."""
START_SHARE, FACTOR = 0.7, 1.15
"""The rates that are simulated first, as a share of the limit and of one another."""
WARM_UP_SHARE = 0.2
"""Of the requests of a simulation."""


@dataclass(frozen=True)
class SimulatedText:
    """A text that requests ask for."""

    segments: tuple[int, ...]
    """Characters of each."""
    short: bool = False


@dataclass(frozen=True)
class Simulated:
    """The result of a simulation. Seconds; requests per second."""

    rate: float
    latency_mean: float
    latency_p95: float
    short_p95: float | None
    """Of texts of one sentence; None if there are none."""
    first_sound_p95: float
    gaps: int

    def keeps(self, target: Target) -> bool:
        """Whether it keeps the target."""
        late = target.p95 is not None and self.latency_p95 > target.p95
        mute = target.first_sound is not None and self.first_sound_p95 > target.first_sound
        torn = target.gaps is not None and self.gaps > target.gaps
        return not (late or mute or torn)


@dataclass(frozen=True)
class SimulatedFleet:
    """Hosts of one size, all with the times of one model, behind a load balancer."""

    model: ServiceModel
    size: HostSize
    hosts: int = 1

    def limit(self, texts: Sequence[SimulatedText]) -> float:
        """The requests per second that the slots, or the balancers, can never exceed."""
        work = sum(sum(map(self.model.expected, text.segments)) for text in texts) / len(texts)
        by_slots = self.size.all_slots / max(1e-9, work * self.model.slowdown_at(1.0))
        utterances = sum(len(text.segments) for text in texts) / len(texts)
        by_balancer = 1 / (self.model.balancer_seconds * utterances) if self.model.balancer_seconds else inf
        return self.hosts * min(by_slots, by_balancer)

    def simulate(
        self,
        texts: Sequence[SimulatedText],
        rate: float,
        requests: int,
        *,
        stream: bool = False,
        seed: int = 0,
        router: Callable[[Sequence[SimulatedHost]], Router] | None = None,
    ) -> Simulated:
        """Have so many requests arrive at random (Poisson) times, for the texts in a random order.

        The first ones, WARM_UP_SHARE of them, are not counted: the hosts are idle at the beginning.
        """
        drawn = _drawn(texts, Random(f"texts {seed}"))
        arrivals = itertools.islice(zip(poisson(rate, seed), drawn, strict=False), requests)
        answered = self._answer(arrivals, stream=stream, seed=seed, router=router)
        return _summarise(rate, answered[int(WARM_UP_SHARE * len(answered)) :])

    def replay(
        self, texts: Sequence[SimulatedText], rate: float, seconds: float, *, seed: int, stream: bool = False
    ) -> Simulated:
        """Have the requests arrive that a sweep sends in a step: the same texts at the same times."""
        timed = zip(poisson(rate, seed), itertools.cycle(texts), strict=False)
        arrivals = itertools.takewhile(lambda arrival: arrival[0] < seconds, timed)
        return _summarise(rate, self._answer(arrivals, stream=stream, seed=seed))

    def _answer(
        self,
        arrivals: Iterator[tuple[float, SimulatedText]],
        *,
        stream: bool,
        seed: int,
        router: Callable[[Sequence[SimulatedHost]], Router] | None = None,
    ) -> list[SimulatedRequest]:
        """The requests with their answers, in the order of their arrival."""
        rng = Random(f"simulation {seed}")
        answered: list[SimulatedRequest] = []
        hosts = [SimulatedHost(self.size, self.model, rng, answered.append) for _ in range(self.hosts)]
        chosen = least_busy(hosts) if router is None else router(hosts)
        requests = (SimulatedRequest(due, text.segments, text.short, stream) for due, text in arrivals)
        _run(hosts, chosen, requests)
        return sorted(answered, key=lambda request: request.due)

    def knee(
        self, texts: Sequence[SimulatedText], target: Target, *, requests: int, precision: float = 0.02
    ) -> Simulated | None:
        """The highest rate that keeps the target; None if none does."""
        limit = self.limit(texts)

        def try_rate(rate: float) -> tuple[Simulated, bool]:
            simulated = self.simulate(texts, rate, requests, stream=target.streams)
            # A queue that grows has not reached its length by the end of any run: the slots are the limit, too.
            return simulated, rate <= limit and simulated.keeps(target)

        return _search(Search(START_SHARE * limit, factor=FACTOR, precision=precision), try_rate)

    def replayed_knee(
        self, texts: Sequence[SimulatedText], target: Target, seconds: float, seed: int
    ) -> Simulated | None:
        """The knee that a sweep with steps of so many seconds would find; None if there is none."""

        def try_rate(rate: float) -> tuple[Simulated, bool]:
            simulated = self.replay(texts, rate, seconds, seed=seed, stream=target.streams)
            return simulated, simulated.keeps(target)

        return _search(Search(START_SHARE * self.limit(texts), factor=FACTOR), try_rate)


def _search(search: Search, try_rate: Callable[[float], tuple[Simulated, bool]]) -> Simulated | None:
    tried, simulated = list[TriedRate](), dict[float, Simulated]()
    while (rate := search.next_rate(tried)) is not None:
        simulated[rate], held = try_rate(rate)
        tried.append(TriedRate(rate, held))
    knee = search.knee(tried)
    return None if knee is None else simulated[knee]


def least_busy(hosts: Sequence[SimulatedHost]) -> Router:
    """HAProxy with deploy/haproxy.cfg."""
    return LeastConnections(hosts, AGENT_INTERVAL_SECONDS)


def _drawn(texts: Sequence[SimulatedText], rng: Random) -> Iterator[SimulatedText]:
    while True:
        yield rng.choice(texts)


def _run(hosts: Sequence[SimulatedHost], router: Router, arrivals: Iterator[SimulatedRequest]) -> None:
    events: list[tuple[float, int]] = []
    """When each host has its next event. An entry may be out of date: the host is then asked in vain."""

    def reschedule(number: int) -> None:
        if (at := hosts[number].next_event()) < inf:
            heapq.heappush(events, (at, number))

    arriving = next(arrivals, None)
    while arriving is not None or events:
        if arriving is not None and (not events or arriving.due <= events[0][0]):
            number = router.choose(arriving.due)
            hosts[number].advance(arriving.due)
            hosts[number].receive(arriving, arriving.due)
            arriving = next(arrivals, None)
        else:
            now, number = heapq.heappop(events)
            if hosts[number].next_event() > now + TOLERANCE * max(1.0, now):
                continue
            hosts[number].advance(now)
        reschedule(number)


def _summarise(rate: float, counted: Sequence[SimulatedRequest]) -> Simulated:
    latencies = [request.answered - request.due for request in counted if request.answered is not None]
    first_sounds = [request.first_sound - request.due for request in counted if request.first_sound is not None]
    short = [request.answered - request.due for request in counted if request.answered is not None and request.short]
    return Simulated(
        rate=rate,
        latency_mean=float(np.mean(latencies)) if latencies else 0.0,
        latency_p95=_p95(latencies),
        short_p95=_p95(short) if short else None,
        first_sound_p95=_p95(first_sounds),
        gaps=sum(request.gaps for request in counted),
    )


def _p95(seconds: Sequence[float]) -> float:
    return float(np.percentile(seconds, 95)) if seconds else 0.0
