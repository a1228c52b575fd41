"""Hostile clients beside the faults: silent and slow connections, answers that nobody reads, a flood of MP3."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

from scripts.attacks.connections import HALF_BODY, HALF_HEAD, NO_STORE
from scripts.attacks.readers import DOCS, SMALL_BUFFER
from scripts.attacks.texts import long_text
from scripts.attacks.wire import ATTACKER, NoAnswerError, attackers, exchange, held_connections, post

HOLD_SECONDS = 5.0
"""After which the held connections are closed, and others opened."""
FLOODERS = 3
FLOOD_CHARACTERS = 500
CONNECTIONS = {
    "silent connections": (200, (b"",), None),
    "half heads and bodies": (60, (HALF_HEAD, HALF_BODY), None),
    "answers that nobody reads": (10, (DOCS,), SMALL_BUFFER),
}
"""How many connections are held, what is sent on each by turns, and their receive buffers."""
FLOODED = "requests of a flood of MP3"


class Attackers:
    """They have addresses of their own, and attack until `run` is cancelled."""

    def __init__(self, port: int) -> None:
        self.attacks: Counter[str] = Counter()
        """How much was tried, by kind."""
        self._port = port

    async def run(self) -> None:
        """Attack until cancelled."""
        async with asyncio.TaskGroup() as group:
            for name, (count, data, receive_buffer) in CONNECTIONS.items():
                group.create_task(self._hold(name, count, data, receive_buffer))
            for number in range(FLOODERS):
                group.create_task(self._flood(number))

    async def _hold(self, name: str, count: int, data: Sequence[bytes], receive_buffer: int | None) -> None:
        while True:
            with held_connections(
                self._port, count, data=data, sources=attackers(20), receive_buffer=receive_buffer
            ) as held:
                self.attacks[name] += len(held)
                await asyncio.sleep(HOLD_SECONDS)

    async def _flood(self, number: int) -> None:
        while True:
            number += FLOODERS
            body = {"text": long_text(FLOOD_CHARACTERS, number), "format": "mp3"}
            with suppress(NoAnswerError):  # it may be refused, or lose two workers by chance
                await exchange(self._port, post("/tts", body, NO_STORE), source=ATTACKER)
            self.attacks[FLOODED] += 1
