"""The hosts that a load takes, on paper: simulated from the measurements of one host. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from balancer.capacity.costs import SAFETY_SHARE
from balancer.capacity.service_model import ServiceModel
from balancer.capacity.simulated_host import HostSize
from balancer.capacity.simulation import SimulatedFleet, SimulatedText
from balancer.capacity.study import HostFacts
from balancer.capacity.target import Target

SIZES = (16, 32, 64, 96, 192)
"""vCPUs of the hosts that a plan compares."""
MAX_HOSTS = 64
REQUESTS_PER_SLOT = 25
MIN_REQUESTS, MAX_REQUESTS = 3_000, 6_000
"""Requests of a simulation."""


@dataclass(frozen=True)
class PlannedHosts:
    """So many hosts of one size, and what they carry."""

    cpus: int
    """Of each host."""
    size: HostSize
    hosts: int
    rate: float
    """Requests per second of all together, at the target."""
    short_p95: float | None
    """Of texts of one sentence at that rate, in seconds; None if the texts are not those of the built-in mix."""


@dataclass(frozen=True)
class Planner:
    """Simulates hosts like a measured one, larger or smaller, alone or behind a load balancer."""

    model: ServiceModel
    host: HostFacts
    texts: Sequence[SimulatedText]
    target: Target

    def size_of(self, cpus: int) -> HostSize:
        """The workers of a host with so many CPUs: as many for each CPU as the measured one has."""
        workers = max(1, round(self.host.workers * cpus / self.host.cpus))
        return replace(self.host.size, workers=workers)

    def simulated_knee(self, step_seconds: float, seed: int) -> float | None:
        """The knee that the sweep of the measured host would have found, in requests per second; None: there is none.

        It is simulated with the requests that the sweep sends.
        """
        knee = SimulatedFleet(self.model, self.host.size).replayed_knee(self.texts, self.target, step_seconds, seed)
        return None if knee is None else knee.rate

    def plan(self, cpus: int, hosts: int = 1) -> PlannedHosts | None:
        """What hosts with so many CPUs carry; None if they do not keep the target even without a load."""
        size = self.size_of(cpus)
        fleet = SimulatedFleet(self.model, size, hosts)
        requests = min(MAX_REQUESTS, max(MIN_REQUESTS, REQUESTS_PER_SLOT * size.all_slots * hosts))
        knee = fleet.knee(self.texts, self.target, requests=requests, precision=0.03)
        return None if knee is None else PlannedHosts(cpus, size, hosts, knee.rate, knee.short_p95)

    def plan_for(self, cpus: int, rate: float, tell: Callable[[str], None]) -> PlannedHosts | None:
        """As many hosts as carry a rate with SAFETY_SHARE of what they could; None if MAX_HOSTS are too few."""
        one = self.plan(cpus)
        if one is None:
            return None
        hosts = max(1, round(rate / SAFETY_SHARE / one.rate))
        while hosts <= MAX_HOSTS:
            planned = one if hosts == 1 else self.plan(cpus, hosts)
            if planned is None or planned.rate * SAFETY_SHARE >= rate:
                return planned
            tell(f"{hosts} hosts of {cpus} vCPU carry {planned.rate:.1f} requests a second: too few")
            hosts += 1
        return None
