"""How a load balancer in front of several hosts chooses one for a request. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from balancer.capacity.simulated_host import SimulatedHost
from balancer.scheduling.host_weight import host_weight


class Router(Protocol):
    """Chooses the host of each request."""

    def choose(self, now: float) -> int:
        """The number of the host for a request that arrives now."""


WEIGHT, MAX_WEIGHT = 32, 256
"""Of a host in deploy/haproxy.cfg, and the highest that HAProxy has."""
KEY_SCALE = 256
"""HAProxy compares hosts by whole numbers, of this many for a request at a weight of 1."""


class LeastConnections:
    """HAProxy's `balance leastconn`: the host with the fewest requests under way for its weight.

    Weights are those that hosts answer to the agent check, which asks all of them every `interval` seconds.
    """

    def __init__(self, hosts: Sequence[SimulatedHost], interval: float) -> None:
        self._hosts = hosts
        self._interval = interval
        self._weights = [WEIGHT] * len(hosts)
        self._next_check = interval
        self._last = 0

    def choose(self, now: float) -> int:
        """The host; among equals, hosts take turns."""
        if now >= self._next_check:
            self._weights = [self._told(host) for host in self._hosts]
            self._next_check = now - now % self._interval + self._interval
        count = len(self._hosts)
        self._last = min(((self._last + 1 + turn) % count for turn in range(count)), key=self._key)
        return self._last

    def _key(self, number: int) -> int:
        """As HAProxy 2.6 has it in `fwlc_queue_srv`; a host without requests comes first whatever its weight."""
        requests = self._hosts[number].requests
        return (requests + 1) * KEY_SCALE // self._weights[number] if requests else 0

    @staticmethod
    def _told(host: SimulatedHost) -> int:
        slots = host.size.all_slots
        percent = host_weight(requests=host.requests, utterances=host.utterances, slots=slots, all_slots=slots)
        return min(MAX_WEIGHT, WEIGHT * percent // 100)
