"""The clients: each sends one request after another, checks the audio, and sometimes hangs up before the answer."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic

import httpx

from scripts.faults.texts import ReferenceUtterance, audio_digest

TIMEOUT = 120.0
"""Seconds after which a request counts as failed."""

MAX_HANG_UP_SECONDS = 0.5
"""A client that hangs up does so within this time: the request is queued, being synthesized or being encoded."""

MAX_SAMPLES = 30
"""Answers whose audio is kept for the recogniser."""


@dataclass
class ClientResults:
    """The answers that the clients received."""

    correct: int = 0
    """Answers with the expected audio."""
    hung_up: int = 0
    """Requests on which the client hung up before an answer."""
    failures: Counter[str] = field(default_factory=Counter)
    """Requests without the expected audio, by the answer or error instead."""
    latencies: list[float] = field(default_factory=list)
    """Latencies of the correct answers in seconds."""
    samples: list[tuple[ReferenceUtterance, bytes]] = field(default_factory=list)
    """The first correct answers: their audio as WAV files."""

    @property
    def requests(self) -> int:
        """The number of requests that have ended."""
        return self.correct + self.hung_up + sum(self.failures.values())


class Clients:
    """Concurrent clients with a connection each, which send requests until they are stopped or `requests` were sent."""

    def __init__(
        self, url: str, utterances: Sequence[ReferenceUtterance], *, requests: int, hang_ups: float, seed: int
    ) -> None:
        """`hang_ups` is the share of requests on which the client hangs up."""
        self.results = ClientResults()
        self._url = url
        self._utterances = utterances
        self._remaining = requests
        self._hang_ups = hang_ups
        self._rng = random.Random(f"clients {seed}")
        self._stopped = False
        self._outstanding: set[int] = set()
        """Each request by the number that remained after it."""
        self._request_ended = asyncio.Condition()

    async def wait_for_requests(self, count: int) -> None:
        """Return once `count` requests have ended."""
        async with self._request_ended:
            await self._request_ended.wait_for(lambda: self.results.requests >= count)

    async def wait_for_outstanding(self) -> None:
        """Return once all requests that are outstanding now have ended."""
        outstanding = frozenset(self._outstanding)
        async with self._request_ended:
            await self._request_ended.wait_for(lambda: outstanding.isdisjoint(self._outstanding))

    def stop(self) -> None:
        """Send no more requests; `run` returns once the outstanding ones have ended."""
        self._stopped = True

    async def run(self, clients: int) -> None:
        """Run this number of clients until they are stopped or all requests were sent."""
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(self._client())

    async def _client(self) -> None:
        while self._remaining > 0 and not self._stopped:
            # trust_env: a proxy in between would have failures of its own.
            async with httpx.AsyncClient(base_url=self._url, timeout=TIMEOUT, trust_env=False) as http:
                while self._remaining > 0 and not self._stopped:
                    self._remaining -= 1
                    number = self._remaining
                    self._outstanding.add(number)
                    connected = await self._request(http, self._rng.choice(self._utterances))
                    self._outstanding.remove(number)
                    async with self._request_ended:
                        self._request_ended.notify_all()
                    if not connected:
                        break

    async def _request(self, http: httpx.AsyncClient, utterance: ReferenceUtterance) -> bool:
        """Send one request and record its result; whether the connection can be used again."""
        hang_up = self._rng.uniform(0, MAX_HANG_UP_SECONDS) if self._rng.random() < self._hang_ups else None
        started = monotonic()
        try:
            async with asyncio.timeout(hang_up):
                answer = await synthesize(http, utterance)
        except TimeoutError:
            self.results.hung_up += 1
            return False
        except httpx.HTTPError as error:
            self.results.failures[type(error).__name__] += 1
            return False
        self._check(utterance, answer, monotonic() - started)
        return True

    def _check(self, utterance: ReferenceUtterance, answer: httpx.Response, seconds: float) -> None:
        if answer.status_code != 200:
            self.results.failures[f"{answer.status_code} {answer.text[:300]}"] += 1
        elif audio_digest(answer.content) != utterance.digest:
            self.results.failures["200 with the wrong audio"] += 1
        else:
            self.results.correct += 1
            self.results.latencies.append(seconds)
            if len(self.results.samples) < MAX_SAMPLES:
                self.results.samples.append((utterance, answer.content))


async def synthesize(http: httpx.AsyncClient, utterance: ReferenceUtterance) -> httpx.Response:
    """Ask for an utterance as a WAV file that does not come from the audio cache."""
    return await http.post(
        "/tts",
        json={"text": utterance.text, "seed": utterance.seed, "format": "wav"},
        headers={"Cache-Control": "no-store"},
    )
