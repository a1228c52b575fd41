"""The clients: each asks for one text after another, compares what it hears, and at times hangs up half-way."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic

import httpx

from scripts.faults.texts import Line, digest

TIMEOUT = 120.0
"""Seconds until a request counts as lost."""

LONGEST_STAY = 0.5
"""A client that hangs up does so within so many seconds: while it waits in line, is spoken, or is encoded."""

KEPT = 30
"""Answers whose audio is kept for the recogniser."""


@dataclass
class Seen:
    """What the clients saw."""

    right: int = 0
    """Answers with the audio that they must have."""
    hung_up: int = 0
    """Requests that their clients gave up, and had no answer to."""
    lost: Counter[str] = field(default_factory=Counter)
    """Requests without audio, or with the wrong one, by what came instead."""
    latencies: list[float] = field(default_factory=list)
    """Seconds, of the right answers."""
    kept: list[tuple[Line, bytes]] = field(default_factory=list)
    """A sample of the right answers: their audio as WAV."""

    @property
    def requests(self) -> int:
        """All that were sent."""
        return self.right + self.hung_up + sum(self.lost.values())


class Clients:
    """So many clients, each with a connection of its own, until they are stopped or `requests` have been sent."""

    def __init__(self, url: str, lines: Sequence[Line], *, requests: int, hang_ups: float, seed: int) -> None:
        self.seen = Seen()
        self._url = url
        self._lines = lines
        self._left = requests
        self._hang_ups = hang_ups
        self._rng = random.Random(f"clients {seed}")
        self._stopped = False
        self._answered = asyncio.Condition()

    async def sent(self, least: int) -> None:
        """Return once so many requests have come to their end."""
        async with self._answered:
            await self._answered.wait_for(lambda: self.seen.requests >= least)

    def stop(self) -> None:
        """Send nothing more; what is under way is waited for."""
        self._stopped = True

    async def run(self, clients: int) -> None:
        """Ask until it is over."""
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(self._client())

    async def _client(self) -> None:
        while self._left > 0 and not self._stopped:
            # trust_env: a proxy in between would have failures of its own.
            async with httpx.AsyncClient(base_url=self._url, timeout=TIMEOUT, trust_env=False) as http:
                while self._left > 0 and not self._stopped:
                    self._left -= 1
                    stayed = await self._ask(http, self._rng.choice(self._lines))
                    async with self._answered:
                        self._answered.notify_all()
                    if not stayed:
                        break  # it hung up

    async def _ask(self, http: httpx.AsyncClient, line: Line) -> bool:
        stay = self._rng.uniform(0, LONGEST_STAY) if self._rng.random() < self._hang_ups else None
        started = monotonic()
        try:
            async with asyncio.timeout(stay):
                answer = await speak(http, line)
        except TimeoutError:
            self.seen.hung_up += 1
            return False
        except httpx.HTTPError as error:
            self.seen.lost[type(error).__name__] += 1
            return False
        self._judge(line, answer, monotonic() - started)
        return True

    def _judge(self, line: Line, answer: httpx.Response, seconds: float) -> None:
        if answer.status_code != 200:
            self.seen.lost[f"{answer.status_code} {answer.text[:300]}"] += 1
        elif digest(answer.content) != line.digest:
            self.seen.lost["200 with the wrong audio"] += 1
        else:
            self.seen.right += 1
            self.seen.latencies.append(seconds)
            if len(self.seen.kept) < KEPT:
                self.seen.kept.append((line, answer.content))


async def speak(http: httpx.AsyncClient, line: Line) -> httpx.Response:
    """The answer to a text, as WAV; finished audio that the server may have kept is not wanted."""
    return await http.post(
        "/tts",
        json={"text": line.text, "seed": line.seed, "format": "wav"},
        headers={"Cache-Control": "no-store"},
    )
