"""All open connections: how many there may be, which one gives way to a new one, and a sweep that ends overdue ones."""

from __future__ import annotations

import asyncio
import logging
import resource
from collections import Counter, deque
from functools import lru_cache
from ipaddress import ip_network
from typing import Protocol

from balancer.access.trusted_proxies import TrustedProxies, parse_address
from balancer.http.turns import Turns
from balancer.metrics import Metrics
from balancer.settings.http import HttpSettings

log = logging.getLogger(__name__)

SWEEP_INTERVAL_SECONDS = 1.0
MAX_CONNECTIONS = 8192
"""The default maximum, where the file descriptors allow more: each connection may hold 64 KiB that no request owns."""
RESERVED_DESCRIPTORS = 160
"""File descriptors for stores, logs, webhooks, the control socket and refused connections."""
DESCRIPTORS_PER_WORKER = 8
CHECKED_PER_TURN = 16
"""Connections that a sweep checks in one turn of the event loop."""
MAX_CHECKED_FOR_ROOM = 64
"""Connections that are looked at, at most, to find one that gives way."""
MAX_LINGERING = 64
"""Connections that stay open, at most, until their client has read a refusal."""


class Connection(Protocol):
    """One connection, as this module sees it."""

    @property
    def address(self) -> str:
        """The peer's address."""

    next_check: float
    """The event loop's time until which it cannot be overdue."""

    def close_after_response(self) -> None:
        """Close it after the response to the request that runs, if that has not begun, and say so in it."""

    def can_give_way(self) -> bool:
        """Whether it may be closed for another: no request is under way, and the last response is sent."""

    def give_way(self) -> None:
        """Close it."""

    def refuse_place(self) -> None:
        """Answer that there are too many connections, and close it."""

    def end_if_overdue(self, now: float) -> None:
        """End it, if a time limit has passed; `now` is the event loop's time."""


class Connections:
    """The open connections. Swept once a second while there are any; counts why connections are ended."""

    def __init__(
        self, settings: HttpSettings, metrics: Metrics, proxies: TrustedProxies, *, workers: int | None = None
    ) -> None:
        self.settings = settings
        self.maximum = settings.max_connections or derived_maximum(workers or 1)
        self.maximum_per_address = settings.max_connections_per_address or max(1, self.maximum // 2)
        self.closing = False
        """Whether every connection is to close after its next response."""
        self.turns = Turns()
        self._metrics = metrics
        self._proxies = proxies
        self._open: set[Connection] = set()
        self._waiting: dict[Connection, None] = {}
        """Connections without a request under way, the one that has waited longest first."""
        self._lingering: set[Connection] = set()
        self._by_share: Counter[str] = Counter()
        self._ended: Counter[str] = Counter()
        """Connections that were ended since the last sweep, by reason."""
        self._next_sweep: asyncio.TimerHandle | None = None
        metrics.connections.set_function(lambda: len(self._open))

    def add(self, connection: Connection) -> None:
        """Take a new connection in. If there is no room, another one that waits gives way, or this one is refused."""
        if self._next_sweep is None:
            self._schedule_sweep()
        self.turns.accepted()
        share = share_of(connection.address)
        over_share = self._by_share[share] >= self.maximum_per_address and connection.address not in self._proxies
        if over_share or (len(self._open) >= self.maximum and not self._make_room()):
            self.count("refused")
            connection.refuse_place()
        else:
            self._waiting[connection] = None
        self._open.add(connection)
        self._by_share[share] += 1

    def discard(self, connection: Connection) -> None:
        """Remove a connection that is closed."""
        self._open.discard(connection)
        self._waiting.pop(connection, None)
        self._lingering.discard(connection)
        share = share_of(connection.address)
        self._by_share[share] -= 1
        if not self._by_share[share]:
            del self._by_share[share]

    def begin_waiting(self, connection: Connection) -> None:
        """A connection has no request under way any more."""
        self._waiting[connection] = None

    def end_waiting(self, connection: Connection) -> None:
        """A connection has a request under way, or is about to close."""
        self._waiting.pop(connection, None)

    def close_after_responses(self) -> None:
        """From now on, have every response say `Connection: close`: this process is about to close its connections.

        A client that is not told may send its next request just as its connection closes, and fail.
        """
        self.closing = True
        for connection in self._open:
            connection.close_after_response()

    def may_linger(self, connection: Connection) -> bool:
        """Whether a connection may stay open until its client has read the response."""
        if len(self._lingering) >= MAX_LINGERING:
            return False
        self._lingering.add(connection)
        return True

    def count(self, reason: str, *, summarize: bool = True) -> None:
        """Count a connection that the server ends, by reason. The log has a summary of each second with any."""
        self._metrics.record_connection_ended(reason)
        if summarize:
            self._ended[reason] += 1

    def _make_room(self) -> bool:
        for _ in range(min(len(self._waiting), MAX_CHECKED_FOR_ROOM)):
            connection = next(iter(self._waiting))
            del self._waiting[connection]
            if connection.can_give_way():
                self.count("displaced")
                connection.give_way()
                return True
            self._waiting[connection] = None
        return False

    def _schedule_sweep(self) -> None:
        self._next_sweep = asyncio.get_running_loop().call_later(SWEEP_INTERVAL_SECONDS, self._sweep)

    def _sweep(self) -> None:
        self._next_sweep = None
        if self._open:
            self._schedule_sweep()
        now = asyncio.get_running_loop().time()
        self._check(deque(connection for connection in self._open if connection.next_check <= now), now)
        ended, self._ended = self._ended, Counter()
        if ended:
            log.info("ended connections", extra={"fields": {**ended, "open": len(self._open)}})

    def _check(self, connections: deque[Connection], now: float) -> None:
        """End the overdue ones of these connections, some in each turn of the event loop."""
        for _ in range(min(len(connections), CHECKED_PER_TURN)):
            if (connection := connections.popleft()) in self._open:
                connection.end_if_overdue(now)
        if connections:
            asyncio.get_running_loop().call_soon(self._check, connections, now)


@lru_cache(maxsize=4096)
def share_of(address: str) -> str:
    """The addresses that count as one client: an IPv4 address, or the IPv6 network of 64 bits that a site has."""
    parsed = parse_address(address)
    if parsed is None or parsed.version == 4:
        return address
    return str(ip_network((parsed, 64), strict=False))


def derived_maximum(workers: int) -> int:
    """The number of connections that this process has file descriptors for; a response may take a file each."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    spare = descriptors - RESERVED_DESCRIPTORS - workers * DESCRIPTORS_PER_WORKER
    return max(1, min(MAX_CONNECTIONS, spare // 2))
