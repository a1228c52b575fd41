"""Clients of several hosts: speech at a rate, speech as fast as it is answered, and jobs. All audio is checked."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx

from balancer.load.arrivals import poisson
from balancer.load.texts import spell_number
from scripts.hosts.host import AUDIO_BYTES
from scripts.support.stub_worker import audio_of

WAV_HEAD_BYTES = 44
SEED = 1
"""Of all requests."""
POLL_SECONDS = 0.5
JOBS_SECONDS = 90.0
"""In which all accepted jobs are to be done, once no more are sent."""
ACCEPT_SECONDS = 60.0


@dataclass
class Outcome:
    """What clients saw."""

    answered: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    jobs_accepted: int = 0
    jobs_done: int = 0
    job_tries: int = 0

    @property
    def requests(self) -> int:
        """Requests for speech."""
        return self.answered + self.failures.total()


def texts(start: int = 0) -> Iterator[str]:
    """Texts of one segment that are all different, and that no front end changes."""
    return (f"Request {spell_number(number)} is to be said" for number in itertools.count(start))


def _fault(response: httpx.Response, text: str) -> str | None:
    """What is wrong with an answer; None if it is the audio of the text."""
    if response.status_code != 200:
        return f"HTTP {response.status_code} {response.text[:200]!r}"
    right = response.content[WAV_HEAD_BYTES:] == audio_of(text, SEED, AUDIO_BYTES)
    return None if right else "the audio of another text"


async def speak(client: httpx.AsyncClient, text: str, outcome: Outcome) -> None:
    """Ask for one text, once."""
    try:
        response = await client.post("/tts", json={"text": text, "seed": SEED})
        fault = _fault(response, text)
    except httpx.HTTPError as error:
        fault = type(error).__name__
    if fault is None:
        outcome.answered += 1
    else:
        outcome.failures[fault] += 1


async def speak_at_rate(client: httpx.AsyncClient, rate: float, seconds: float, outcome: Outcome) -> None:
    """Ask at random times, however many requests are outstanding."""
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for due, text in zip(poisson(rate, seed=0), texts(), strict=False):
            if due >= seconds:
                break
            await asyncio.sleep(max(0.0, began + due - time.monotonic()))
            group.create_task(speak(client, text, outcome))
    outcome.seconds = time.monotonic() - began


async def speak_at_once(client: httpx.AsyncClient, clients: int, seconds: float, first_text: int) -> float:
    """The answers per second to so many clients, each of which asks again when it has an answer."""
    outcome, source, began = Outcome(), texts(first_text), time.monotonic()

    async def ask_again() -> None:
        while time.monotonic() - began < seconds:
            await speak(client, next(source), outcome)

    await asyncio.gather(*(ask_again() for _ in range(clients)))
    if outcome.failures:
        raise RuntimeError(f"requests failed: {dict(outcome.failures)}")
    return outcome.answered / (time.monotonic() - began)


async def send_jobs(client: httpx.AsyncClient, interval: float, seconds: float, outcome: Outcome) -> dict[str, str]:
    """Send jobs with idempotency keys; the texts of those that were accepted, by their ids."""
    accepted: dict[str, str] = {}
    began = time.monotonic()
    for text in texts(500_000):
        if time.monotonic() - began >= seconds:
            return accepted
        accepted[await _accepted(client, text, outcome)] = text
        outcome.jobs_accepted += 1
        await asyncio.sleep(interval)
    return accepted


async def _accepted(client: httpx.AsyncClient, text: str, outcome: Outcome) -> str:
    """The id of a job, which is sent until it is accepted."""
    until = time.monotonic() + ACCEPT_SECONDS
    while time.monotonic() < until:
        outcome.job_tries += 1
        try:
            response = await client.post("/queue", json={"text": text, "seed": SEED}, headers={"Idempotency-Key": text})
            if response.status_code == 202:
                return str(response.json()["requestId"])
        except httpx.HTTPError:
            pass  # as a client does that does not know whether the job was taken: it sends the same again
        await asyncio.sleep(POLL_SECONDS)
    raise RuntimeError(f"no host has accepted a job within {ACCEPT_SECONDS:g} s")


async def check_jobs(client: httpx.AsyncClient, accepted: dict[str, str], outcome: Outcome) -> None:
    """Wait until all are done, and check the audio of each."""
    until = time.monotonic() + JOBS_SECONDS
    for job, text in accepted.items():
        while time.monotonic() < until:
            try:
                response = await client.get(f"/audio/{job}")
            except httpx.HTTPError:
                response = None
            if response is not None and response.status_code == 200:
                outcome.jobs_done += 1
                if (fault := _fault(response, text)) is not None:
                    outcome.failures[f"job: {fault}"] += 1
                break
            await asyncio.sleep(POLL_SECONDS)
