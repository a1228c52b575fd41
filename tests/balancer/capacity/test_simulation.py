"""The simulation against closed forms of queueing theory, and of many hosts against one."""

import math
from functools import cache

import numpy as np
import pytest

from balancer.capacity.routing import LeastConnections
from balancer.capacity.service_model import ServiceModel
from balancer.capacity.simulated_host import HostSize
from balancer.capacity.simulation import SimulatedFleet, SimulatedText
from balancer.capacity.target import Target

SHORT = [SimulatedText((60,), short=True)]
EXPONENTIAL = tuple((-np.log(1 - (np.arange(1000) + 0.5) / 1000)).tolist())


def model(seconds: float, spread: tuple[float, ...] = (1.0,), **fields: object) -> ServiceModel:
    """A host whose utterances take so many seconds on average, however many run."""
    values: dict[str, object] = {
        "base": seconds,
        "per_character": 0.0,
        "slowdown": ((1.0, 1.0),),
        "overhead": ((1.0, 0.0),),
        "spread": spread,
        "balancer_seconds": 0.0,
        "audio_per_character": 0.06,
    }
    return ServiceModel(**values | fields)


def mean_wait(servers: int, load: float) -> float:
    """The mean wait in M/M/c by Erlang's C formula, in service times, at that load for each server."""
    offered = servers * load
    blocked = 1.0
    for number in range(1, servers + 1):  # Erlang's B formula, by recursion
        blocked = offered * blocked / (number + offered * blocked)
    waits = blocked / (1 - load * (1 - blocked))
    return waits / (servers - offered)


@pytest.mark.parametrize(("servers", "load"), [(1, 0.5), (4, 0.7), (16, 0.8)])
def test_the_wait_is_that_of_erlang(servers: int, load: float) -> None:
    fleet = SimulatedFleet(model(1.0, EXPONENTIAL), HostSize(servers))
    runs = [fleet.simulate(SHORT, servers * load, 3_000, seed=seed).latency_mean for seed in range(3)]
    assert np.mean(runs) == pytest.approx(1 + mean_wait(servers, load), rel=0.08)


def test_slots_of_one_worker_serve_as_those_of_many() -> None:
    apart, together = (
        SimulatedFleet(model(1.0), size).simulate(SHORT, 3.5, 3_000) for size in (HostSize(4), HostSize(1, 4))
    )
    assert together.latency_p95 == pytest.approx(apart.latency_p95, rel=0.01)


def test_the_knee_is_that_of_the_slots() -> None:
    knee = SimulatedFleet(model(0.1), HostSize(4)).knee(SHORT, Target(p95=2.0), requests=1_000)
    assert knee is not None
    assert knee.rate == pytest.approx(4 / 0.1, rel=0.06)


def test_a_slot_is_slower_the_more_are_in_use() -> None:
    shared = model(0.1, slowdown=((0.25, 1.0), (1.0, 4.0)))
    assert SimulatedFleet(shared, HostSize(4)).simulate(SHORT, 0.01, 50).latency_mean == pytest.approx(0.1)
    assert SimulatedFleet(shared, HostSize(4)).limit(SHORT) == pytest.approx(10)


def test_the_balancer_is_the_limit_of_a_host_with_many_workers() -> None:
    knee = SimulatedFleet(model(0.1, balancer_seconds=0.01), HostSize(16)).knee(SHORT, Target(p95=1.0), requests=1_000)
    assert knee is not None
    assert knee.rate == pytest.approx(100, rel=0.06)


def test_a_long_text_is_spoken_on_all_slots() -> None:
    long = [SimulatedText((60,) * 20)]
    alone = SimulatedFleet(model(0.1), HostSize(4)).simulate(long, 0.01, 20)
    assert alone.latency_mean == pytest.approx(0.5)


def test_a_stream_sounds_with_its_first_segment_and_has_gaps_where_the_host_is_too_slow() -> None:
    long = [SimulatedText((10,) * 6)]
    fast, slow = model(0.5), model(2.0)
    heard = SimulatedFleet(fast, HostSize(1)).simulate(long, 0.01, 10, stream=True)
    assert heard.first_sound_p95 == pytest.approx(0.5)
    assert heard.gaps == 0
    assert (
        SimulatedFleet(slow, HostSize(1)).simulate(long, 0.001, 10, stream=True).gaps == 8 * 5
    )  # two of ten warm it up


def test_what_the_target_does_not_allow_is_no_knee() -> None:
    assert SimulatedFleet(model(3.0), HostSize(1)).knee(SHORT, Target(p95=2.0), requests=300) is None


@cache
def short_p95(hosts: int, workers: int, load: float) -> float:
    fleet = SimulatedFleet(model(0.2, tuple(np.linspace(0.5, 1.5, 21).tolist())), HostSize(workers), hosts)
    p95 = fleet.simulate(SHORT, load * fleet.limit(SHORT), 3_000).short_p95
    assert p95 is not None
    return p95


@pytest.mark.parametrize("hosts", [4, 64])
@pytest.mark.parametrize("load", [0.7, 0.9])
def test_short_texts_wait_no_longer_on_many_hosts_than_on_one_of_as_many_workers(hosts: int, load: float) -> None:
    assert short_p95(hosts, 4, load) <= 1.1 * short_p95(1, 4 * hosts, load)


def test_short_texts_do_not_wait_for_long_ones_where_hosts_tell_their_work() -> None:
    texts = [*SHORT * 6, *[SimulatedText((60,) * 4)] * 3, SimulatedText((60,) * 20)]
    fleet = SimulatedFleet(model(0.2, tuple(np.linspace(0.5, 1.5, 21).tolist())), HostSize(4), hosts=32)
    rate = 0.8 * fleet.limit(texts)
    told = fleet.simulate(texts, rate, 4_000)
    untold = fleet.simulate(texts, rate, 4_000, router=lambda hosts: LeastConnections(hosts, math.inf))
    assert told.short_p95 is not None
    assert untold.short_p95 is not None
    assert told.short_p95 < 0.9 * untold.short_p95
    assert told.latency_p95 < 0.9 * untold.latency_p95


def test_texts_of_which_none_is_short_have_no_time_of_short_ones() -> None:
    assert SimulatedFleet(model(1.0), HostSize(2)).simulate([SimulatedText((60,))], 1.0, 100).short_p95 is None


def test_a_simulation_can_be_repeated() -> None:
    fleet = SimulatedFleet(model(0.2, EXPONENTIAL), HostSize(2), hosts=3)
    first, again, other = (fleet.simulate(SHORT, 20, 300, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    assert math.isfinite(first.latency_p95)
