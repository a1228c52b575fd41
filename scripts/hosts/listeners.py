"""Listeners of streams through the proxy, while hosts fail: whole streams, streams that break off, and their retries.

A stream may break off where its host dies, as its client notices. It must never end as if it were whole, and the client
that asks again, with the same seed, must hear the same.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx

from balancer.load.texts import spell_number
from scripts.support.stream_twins import Twin, request_stream

SENTENCES_PER_TEXT = 24
RETRY_SECONDS = 0.5
"""Pause before a client asks again for a stream that broke off."""
MAX_RETRIES = 20
PAUSE_SECONDS = 1.0
"""Pause of a listener between two streams."""


@dataclass
class Heard:
    """What listeners have heard."""

    whole: int = 0
    """Streams that ended regularly, with the audio of their twins."""
    retried: int = 0
    """Those of them whose listener had asked before, and had heard only a part."""
    broken: Counter[str] = field(default_factory=Counter)
    """Streams that broke off, with the beginning of their twins' audio, by what was being done to the hosts."""
    failures: Counter[str] = field(default_factory=Counter)


def texts(count: int) -> list[Twin]:
    """So many texts of several segments, without their audio."""
    numbers = [range(first, first + SENTENCES_PER_TEXT) for first in range(0, 100 * count, 100)]
    sentences = [[f"Sentence {spell_number(number)} is to be heard." for number in text] for text in numbers]
    return [Twin(" ".join(text), seed) for seed, text in enumerate(sentences)]


class Listeners:
    """Each hears one twin after another. `during` is what is being done to the hosts at the moment."""

    def __init__(self, client: httpx.AsyncClient, twins: Sequence[Twin]) -> None:
        self.heard = Heard()
        self.during = "nothing"
        self._client = client
        self._twins = twins

    async def run(self, seconds: float) -> None:
        """Run a listener for each twin; none begins a stream after so many seconds."""
        until = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            for first in range(len(self._twins)):
                group.create_task(self._listen(first, until))

    async def _listen(self, first: int, until: float) -> None:
        number = first
        while time.monotonic() < until:
            await self.hear(self._twins[number % len(self._twins)])
            number += 1
            await asyncio.sleep(PAUSE_SECONDS)

    async def hear(self, twin: Twin) -> None:
        """Ask for a stream until it is whole."""
        for tried in range(MAX_RETRIES + 1):
            try:
                fault = await self._fault(twin)
            except httpx.HTTPError:
                self.heard.broken[self.during] += 1
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if fault is None:
                self.heard.whole += 1
                self.heard.retried += tried > 0
            else:
                self.heard.failures[f"stream: {fault}"] += 1
            return
        self.heard.failures["stream: it broke off again and again"] += 1

    async def _fault(self, twin: Twin) -> str | None:
        """What is wrong with a stream; None if it is whole. Raises httpx.HTTPError if it breaks off."""
        size = 0
        async with request_stream(self._client, twin) as response:
            if response.status_code != 200:
                return f"HTTP {response.status_code} {(await response.aread())[:200]!r}"
            async for piece in response.aiter_raw():
                if piece != twin.pcm[size : size + len(piece)]:
                    return "other audio than undisturbed"
                size += len(piece)
        return None if size == len(twin.pcm) else "it ended as if it were whole"
