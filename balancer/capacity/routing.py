"""How a load balancer in front of several hosts chooses one for a request. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from balancer.capacity.simulated_host import SimulatedHost
from balancer.scheduling.host_weight import HostWeight


class Router(Protocol):
    """Chooses the host of each request."""

    def choose(self, now: float) -> int:
        """The number of the host for a request that arrives now."""


class LeastConnections:
    """HAProxy's `balance leastconn`: the host with the fewest requests under way for its weight.

    Weights are those that hosts answer to the agent check, which asks all of them every `interval` seconds.
    """

    def __init__(self, hosts: Sequence[SimulatedHost], interval: float) -> None:
        self._hosts = hosts
        self._interval = interval
        self._agents = [HostWeight() for _ in hosts]
        self._weights = [100] * len(hosts)
        self._next_check = interval
        self._last = 0

    def choose(self, now: float) -> int:
        """The host; among equals, hosts take turns."""
        while now >= self._next_check:
            self._weights = [
                agent.observe(free=host.free_slots, slots=host.size.all_slots, all_slots=host.size.all_slots)
                for agent, host in zip(self._agents, self._hosts, strict=True)
            ]
            self._next_check += self._interval
        count, hosts, weights = len(self._hosts), self._hosts, self._weights
        turns = [(self._last + 1 + turn) % count for turn in range(count)]
        self._last = min(turns, key=lambda number: (hosts[number].requests + 1) / weights[number])
        return self._last
