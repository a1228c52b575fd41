"""The load: the same texts for both sides, sent all at once, and what came of them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle, islice, pairwise

import httpx

from scripts.load.client import BadAudio, wav_seconds
from scripts.load.texts import SENTENCES
from scripts.support.memory import Watch
from scripts.support.noise import machine_seconds
from scripts.support.servers import Server
from worker.engines.chatterbox.token_budget import MAX_TOKENS, token_budget

LEAST_TOKENS = token_budget("a")

SAME_SECONDS = 0.001
"""Two sides' audio of one text may differ by so much."""

_WATCH_SECONDS = 0.5


class UnequalError(RuntimeError):
    """The sides did not do the same work: there is no result."""


@dataclass(frozen=True)
class Job:
    """One utterance."""

    text: str
    seed: int


@dataclass(frozen=True)
class Run:
    """One side speaking several texts, sent at once. Times in seconds from when all were sent."""

    side: str
    round: int
    seconds: float
    """Until the last answer."""
    answers: tuple[float, ...]
    """When each text's answer was there, by text."""
    audio_seconds: tuple[float, ...]
    """How much audio it was, by text."""
    idle_cpu: float
    """What a side that waited took meanwhile, in cores; 0 where there is none."""
    others_cpu: float
    """What everything else on the machine took, this program included, in cores: near 0 on a quiet machine."""

    @property
    def speed(self) -> float:
        """Audio seconds a second."""
        return sum(self.audio_seconds) / self.seconds


def texts(number: int, tokens: int, first: int = 0) -> list[str]:
    """So many texts, all different, from number `first` of an endless row, of about `tokens` speech tokens each.

    Their lengths differ by a letter, below and above in turns, as no two utterances of real life are equally long:
    torch keeps what it has compiled for a length, and would speak one length again at less cost.
    """
    return [_text(index, _length(index, tokens)) for index in range(first, first + number)]


def _length(index: int, tokens: int) -> int:
    letters = (index + 1) // 2 * (1 if index % 2 else -1)
    return max(LEAST_TOKENS, min(MAX_TOKENS, tokens + letters * (LEAST_TOKENS - token_budget(""))))


def _text(first: int, tokens: int) -> str:
    words = islice(cycle(SENTENCES), first, None)
    text = next(words)
    while token_budget(text) < min(tokens, MAX_TOKENS):
        text += " " + next(words)
    while token_budget(text) > tokens:
        text = text[:-1].rstrip()
    return text


def jobs(number: int, tokens: int, round_number: int) -> list[Job]:
    """A round's utterances: texts, lengths and seeds are others in each, so that no cache can know them."""
    spoken = texts(number, tokens, first=round_number * number)
    return [Job(text, seed=1000 * round_number + index) for index, text in enumerate(spoken)]


def spread(number: int, least: int, most: int, round_number: int) -> list[Job]:
    """So many utterances of `least` to `most` speech tokens, as evenly spread between them as texts allow.

    One alone is in the middle. They come in no order, and in each round in another; texts and seeds are others, too.
    """
    steps = max(1, number - 1)
    lengths = [least + (most - least) * index // steps for index in range(number)]
    if number == 1:
        lengths = [(least + most) // 2]
    random.Random(round_number).shuffle(lengths)
    first = round_number * number
    return [Job(_text(first + index, length), 1000 * round_number + index) for index, length in enumerate(lengths)]


def check_same(runs: Sequence[Run], work: Sequence[Job]) -> None:
    """Raise UnequalError where two sides made another length of audio of the same text."""
    for first, second in pairwise(runs):
        for job, one, other in zip(work, first.audio_seconds, second.audio_seconds, strict=True):
            if abs(one - other) > SAME_SECONDS:
                raise UnequalError(
                    f"the sides did not do the same work: of {job.text!r} {first.side} made {one:.3f} s of audio, "
                    f"{second.side} {other:.3f} s"
                )


def speak_all(server: Server, work: Sequence[Job], round_number: int, watch: Watch, idle: Server | None = None) -> Run:
    """Have `server` speak all of `work`, sent at once, while `idle` waits. Raises SideError."""
    return asyncio.run(_speak_all(server, work, round_number, watch, idle))


async def _speak_all(server: Server, work: Sequence[Job], round_number: int, watch: Watch, idle: Server | None) -> Run:
    processes = set(server.processes())
    watching = asyncio.create_task(_keep_looking(watch))
    limits = httpx.Limits(max_connections=None)
    # A proxy in between would be measured, too.
    async with httpx.AsyncClient(base_url=server.url, limits=limits, timeout=None, trust_env=False) as client:
        before = _Clocks.now(server, idle)
        started = time.perf_counter()
        spoken = await asyncio.gather(*(_speak(client, server, job) for job in work))
        seconds = time.perf_counter() - started
        used = _Clocks.now(server, idle) - before
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
    # The balancer would have run its utterance again: nobody but the clock would have noticed.
    if processes != set(server.processes()):
        raise server.failure("a process of it ended under the load and was started again")
    return Run(
        side=server.name,
        round=round_number,
        seconds=seconds,
        answers=tuple(answered - started for answered, _ in spoken),
        audio_seconds=tuple(audio for _, audio in spoken),
        idle_cpu=used.idle / seconds,
        others_cpu=max(0.0, used.machine - used.active - used.idle) / seconds,
    )


async def _speak(client: httpx.AsyncClient, server: Server, job: Job) -> tuple[float, float]:
    """When the answer was there, and how many seconds of audio it is."""
    try:
        response = await client.post("/tts", json={"text": job.text, "seed": job.seed, "format": "wav"})
    except httpx.TransportError as error:
        raise server.failure(f"no answer to {job.text!r}: {type(error).__name__}") from error
    answered = time.perf_counter()
    if response.status_code != httpx.codes.OK:
        raise server.failure(f"HTTP {response.status_code} for {job.text!r}: {response.text[:500]}")
    try:
        return answered, wav_seconds(response.content)
    except BadAudio as error:
        raise server.failure(f"the answer to {job.text!r} is no audio: {error}") from error


async def _keep_looking(watch: Watch) -> None:
    while True:
        watch.look()
        await asyncio.sleep(_WATCH_SECONDS)


@dataclass(frozen=True)
class _Clocks:
    """CPU seconds: of the side at work, the side that waits, and the whole machine."""

    active: float
    idle: float
    machine: float

    @classmethod
    def now(cls, server: Server, idle: Server | None) -> _Clocks:
        return cls(server.cpu_seconds(), idle.cpu_seconds() if idle is not None else 0.0, machine_seconds())

    def __sub__(self, before: _Clocks) -> _Clocks:
        return _Clocks(self.active - before.active, self.idle - before.idle, self.machine - before.machine)
