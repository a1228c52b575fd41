"""The stages of a balancer's life, between the process, which sees signals and connections, and the parts of its app.

A process serves; then it stops, on a signal, or hands over to a successor, which accepts beside it from then on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class Lifecycle:
    """Carries announcements; each part sets the callbacks that concern it."""

    def __init__(self) -> None:
        self.accepting = asyncio.Event()
        """Set once the process accepts connections."""
        self.handed_over = False
        """Whether a successor has taken over: this process finishes what it has."""
        self.on_stopping: Callable[[], None] = lambda: None
        """Called when the server is to stop soon, and still serves."""
        self.on_hand_over: list[Callable[[], Awaitable[None]]] = []
        """Called in turn when a successor takes over."""

    async def hand_over(self) -> None:
        """Finishes in favour of a successor: no new connections, jobs or webhooks."""
        if not self.handed_over:
            self.handed_over = True
            for callback in self.on_hand_over:
                await callback()
