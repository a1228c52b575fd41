"""The other caller: asks for one cached answer again and again, at a steady rate, however slow the answers are.

It is a process of its own, `steady_client`, so that its latencies are not those of the attacker's event loop.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from balancer.host.processes import running
from balancer.runtime.repository import REPOSITORY
from scripts.attacks.steady_client import ANSWER_SECONDS, KEY_VARIABLE, Record
from scripts.support.servers import clean_environment

POLL_INTERVAL_SECONDS = 0.05
START_SECONDS = 60.0


@dataclass(frozen=True)
class Observation:
    """The bystander's requests in a span of time."""

    records: Sequence[Record]

    @property
    def failures(self) -> Counter[str]:
        """The requests that failed, by reason."""
        return Counter(record.error for record in self.records if record.error is not None)

    @property
    def p99(self) -> float | None:
        """The 99th percentile of the seconds, of failed requests, too; None without requests."""
        seconds = sorted(record.seconds for record in self.records)
        return seconds[max(0, math.ceil(0.99 * len(seconds)) - 1)] if seconds else None


class Bystander:
    """The running process, as the attack test sees it."""

    def __init__(self, file: Path) -> None:
        self._file = file

    async def started(self) -> None:
        """Return once its first request has ended. Raises TimeoutError."""
        async with asyncio.timeout(START_SECONDS):
            while not self._records():
                await asyncio.sleep(POLL_INTERVAL_SECONDS)

    async def observation(self, start: float, end: float) -> Observation:
        """The requests that were sent from `start` to `end`, once all of them have ended."""
        deadline = time.monotonic() + ANSWER_SECONDS + 5.0
        while True:
            records = self._records()
            later = [record.number for record in records if record.sent >= end]
            # Numbers are given as requests are sent: the lowest later one tells how many there were before.
            if later and len(records) - len(later) >= min(later):
                break
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(POLL_INTERVAL_SECONDS)
        return Observation([record for record in records if start <= record.sent < end])

    def _records(self) -> list[Record]:
        lines = self._file.read_text(encoding="utf-8").split("\n")[:-1]
        return [Record(**json.loads(line)) for line in lines]


@contextmanager
def start_bystander(port: int, text: str, file: Path, *, api_key: str | None = None) -> Iterator[Bystander]:
    """Run the bystander until the end of the block; its records go to `file`."""
    command = [sys.executable, "-m", "scripts.attacks.steady_client", str(port), text]
    environment = clean_environment() | ({KEY_VARIABLE: api_key} if api_key else {})
    with running(command, log=file, env=environment, cwd=REPOSITORY):
        yield Bystander(file)
