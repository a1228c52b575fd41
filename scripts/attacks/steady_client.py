"""`python -m scripts.attacks.steady_client PORT TEXT`: asks for a cached answer again and again, at a steady rate.

It does so however slow the answers are, and writes a line of JSON for each request when that has ended.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import time
from dataclasses import asdict, dataclass

from scripts.attacks.wire import BYSTANDER, NoAnswerError, exchange, post

PAUSE_SECONDS = (0.02, 0.05)
"""Minimum and maximum time between two requests."""
ANSWER_SECONDS = 15.0
"""A request without an answer for so long has failed."""
MAX_OUTSTANDING = 100
"""While so many requests are without an answer, no more are sent."""
KEY_VARIABLE = "ATTACK_BYSTANDER_KEY"
"""Environment variable with the API key; a command line could be read by others."""


@dataclass(frozen=True)
class Record:
    """One request."""

    number: int
    sent: float
    """Time of the monotonic clock, which all processes of a host share."""
    seconds: float
    """Until the complete answer was received, or the request failed."""
    error: str | None = None


async def _ask_steadily(port: int, request: bytes) -> None:
    rng = random.Random()
    outstanding: set[asyncio.Task[None]] = set()
    due, number = time.monotonic(), 0
    while True:
        due = max(due + rng.uniform(*PAUSE_SECONDS), time.monotonic())
        await asyncio.sleep(due - time.monotonic())
        if len(outstanding) < MAX_OUTSTANDING:
            task = asyncio.create_task(_ask(port, request, number))
            outstanding.add(task)
            task.add_done_callback(outstanding.discard)
            number += 1


async def _ask(port: int, request: bytes, number: int) -> None:
    sent, error = time.monotonic(), None
    try:
        answer = await exchange(port, request, source=BYSTANDER, timeout=ANSWER_SECONDS)
        if answer.status != 200:
            error = f"HTTP {answer.status} {answer.body[:120].decode(errors='replace')}"
    except NoAnswerError as failure:
        error = str(failure)
    print(json.dumps(asdict(Record(number, sent, time.monotonic() - sent, error))), flush=True)


def main() -> None:
    """Ask until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("text")
    arguments = parser.parse_args()
    key = os.environ.get(KEY_VARIABLE)
    headers = [("Authorization", f"Bearer {key}")] if key else []
    asyncio.run(_ask_steadily(arguments.port, post("/tts", {"text": arguments.text}, headers)))


if __name__ == "__main__":
    main()
