"""Turns of clients, where many requests come or many clients leave at once: a few in each turn of the event loop.

Without them, a burst of one client's requests would all be started in one turn of the event loop, and everybody else
would wait until each of them has run to its first pause.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

STARTS_PER_TURN = 1
"""Requests that are started in one turn of the event loop."""
ACCEPTS_PER_START = 16
"""Turns that accept a connection each before a request is started. The kernel hands connections out in their order, so
a new client waits until those before it are accepted: that must not wait for the requests of each."""


class Turns:
    """Callbacks that start requests or tell them of their client, in turns of the event loop. Addresses take turns."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Callable[[], None]]] = {}
        """By share of the client, the next one first."""
        self._allowed = STARTS_PER_TURN
        self._accepts = 0
        """Turns since requests were started last, each of which has accepted a connection."""
        self._accepted = False
        self._scheduled = False

    def accepted(self) -> None:
        """A connection was accepted."""
        self._accepted = True
        self._schedule()

    def take(self, share: str, start: Callable[[], None]) -> None:
        """Call `start` now or in a later turn of the event loop, as soon as it is this share's turn."""
        if self._allowed and not self._waiting:
            self._allowed -= 1
            start()
        else:
            self._waiting.setdefault(share, deque()).append(start)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        if self._accepted and self._accepts < ACCEPTS_PER_START:
            self._accepts += 1
        else:
            self._accepts, self._allowed = 0, STARTS_PER_TURN
        self._accepted = False
        while self._waiting and self._allowed:
            self._start_next()
        if self._waiting or self._accepts or self._allowed < STARTS_PER_TURN:
            self._schedule()

    def _start_next(self) -> None:
        self._allowed -= 1
        share = next(iter(self._waiting))
        starts = self._waiting.pop(share)
        start = starts.popleft()
        if starts:
            self._waiting[share] = starts  # at the end: the others come first
        start()
