"""A burst: utterances that are sent to a server all at once, and how long their answers took."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle, islice, pairwise

import httpx

from balancer.load.client import BadAudioError, wav_seconds
from balancer.load.texts import SENTENCES
from scripts.support.memory import MemoryWatch
from scripts.support.noise import machine_cpu_seconds
from scripts.support.servers import Server
from worker.engines.chatterbox.token_budget import MAX_TOKENS, token_budget

MIN_TOKENS = token_budget("aa")
"""Speech tokens of the shortest text: a letter that stands alone is a word, which takes more."""
_LETTER_TOKENS = token_budget("aaa") - MIN_TOKENS

AUDIO_TOLERANCE_SECONDS = 0.001
"""Two servers' audio of one text may differ by this length."""

_SAMPLE_INTERVAL_SECONDS = 0.5


class UnequalAudioError(RuntimeError):
    """Two servers made audio of different lengths from the same text: their times cannot be compared."""


@dataclass(frozen=True)
class BurstUtterance:
    """A text and its seed."""

    text: str
    seed: int


@dataclass(frozen=True)
class BurstResult:
    """The answers of one server to one burst. Times are in seconds since the burst was sent."""

    server: str
    """Name of the server."""
    round: int
    seconds: float
    """Time of the last answer."""
    answers: tuple[float, ...]
    """Time of each answer, in the order of the utterances."""
    audio_seconds: tuple[float, ...]
    """Length of each answer's audio, in the order of the utterances."""
    idle_cpu: float
    """Cores that a loaded but idle server used meanwhile; 0 if there is none."""
    others_cpu: float
    """Cores that all other programs used, this one included: near 0 on a quiet machine."""

    @property
    def speed(self) -> float:
        """Seconds of audio per second."""
        return sum(self.audio_seconds) / self.seconds


def varied_texts(count: int, tokens: int, first: int = 0) -> list[str]:
    """`count` different texts of about `tokens` speech tokens each, from number `first` of an endless sequence.

    The lengths differ by one letter each, alternately below and above `tokens`: PyTorch keeps what it has compiled for
    a length, and would be faster at a length that it has met before than it is with real texts.
    """
    return [_text(index, _varied_tokens(index, tokens)) for index in range(first, first + count)]


def _varied_tokens(index: int, tokens: int) -> int:
    letters = (index + 1) // 2 * (1 if index % 2 else -1)
    return max(MIN_TOKENS, min(MAX_TOKENS, tokens + letters * _LETTER_TOKENS))


def _text(first_sentence: int, tokens: int) -> str:
    """A text of at most `tokens` speech tokens, and of hardly fewer."""
    most = min(tokens, MAX_TOKENS)
    sentences = islice(cycle(SENTENCES), first_sentence, None)
    text = next(sentences)
    while token_budget(text) < most:
        text += " " + next(sentences)
    while token_budget(text) > most:
        text = text[:-1].rstrip(" .,")
    # The last word, of which a part is gone, is filled up, not with one letter over and over: nobody says that.
    while token_budget(text) < most and token_budget(fuller := text + _next_letter(text)) <= most:
        text = fuller
    return text


def _next_letter(text: str) -> str:
    if not text:
        return "na"
    return "n" if text.endswith("a") else "a"


def similar_utterances(count: int, tokens: int, round_number: int) -> list[BurstUtterance]:
    """`count` utterances of about `tokens` speech tokens each.

    Texts, lengths and seeds differ between rounds, so that no cache has an answer.
    """
    texts = varied_texts(count, tokens, first=round_number * count)
    return [BurstUtterance(text, seed=1000 * round_number + index) for index, text in enumerate(texts)]


def spread_utterances(count: int, min_tokens: int, max_tokens: int, round_number: int) -> list[BurstUtterance]:
    """`count` utterances whose lengths are evenly spread over `min_tokens` to `max_tokens` speech tokens.

    A single utterance has the mean length. Order, texts and seeds differ between rounds.
    """
    steps = max(1, count - 1)
    lengths = [min_tokens + (max_tokens - min_tokens) * index // steps for index in range(count)]
    if count == 1:
        lengths = [(min_tokens + max_tokens) // 2]
    random.Random(round_number).shuffle(lengths)
    first = round_number * count
    return [
        BurstUtterance(_text(first + index, length), seed=1000 * round_number + index)
        for index, length in enumerate(lengths)
    ]


def check_equal_audio(results: Sequence[BurstResult], utterances: Sequence[BurstUtterance]) -> None:
    """Raise UnequalAudioError if the servers' answers to one text differ in length."""
    for first, second in pairwise(results):
        for utterance, one, other in zip(utterances, first.audio_seconds, second.audio_seconds, strict=True):
            if abs(one - other) > AUDIO_TOLERANCE_SECONDS:
                raise UnequalAudioError(
                    f"the servers did not do the same work: from {utterance.text!r} {first.server} made {one:.3f} s of "
                    f"audio, {second.server} {other:.3f} s"
                )


def send_burst(
    server: Server,
    utterances: Sequence[BurstUtterance],
    round_number: int,
    watch: MemoryWatch,
    idle: Server | None = None,
) -> BurstResult:
    """Send all utterances to `server` at once and await the answers, while `idle` has no work. Raises ServerError."""
    return asyncio.run(_send_burst(server, utterances, round_number, watch, idle))


async def _send_burst(
    server: Server, utterances: Sequence[BurstUtterance], round_number: int, watch: MemoryWatch, idle: Server | None
) -> BurstResult:
    processes = set(server.processes())
    sampling = asyncio.create_task(_sample_memory(watch))
    limits = httpx.Limits(max_connections=None)
    # trust_env: the time of a proxy would be measured, too.
    async with httpx.AsyncClient(base_url=server.url, limits=limits, timeout=None, trust_env=False) as client:
        before = _CpuTimes.now(server, idle)
        started = time.perf_counter()
        answers = await asyncio.gather(*(_synthesize(client, server, utterance) for utterance in utterances))
        seconds = time.perf_counter() - started
        used = _CpuTimes.now(server, idle) - before
    sampling.cancel()
    with suppress(asyncio.CancelledError):
        await sampling
    # The balancer retries the utterances of a worker that has ended: only the times would show it.
    if processes != set(server.processes()):
        raise server.failure("one of its processes ended under load and was started again")
    return BurstResult(
        server=server.name,
        round=round_number,
        seconds=seconds,
        answers=tuple(answered - started for answered, _ in answers),
        audio_seconds=tuple(audio for _, audio in answers),
        idle_cpu=used.idle / seconds,
        others_cpu=max(0.0, used.machine - used.active - used.idle) / seconds,
    )


async def _synthesize(client: httpx.AsyncClient, server: Server, utterance: BurstUtterance) -> tuple[float, float]:
    """The time of the answer, on the clock of `perf_counter`, and the length of its audio in seconds."""
    body = {"text": utterance.text, "seed": utterance.seed, "format": "wav"}
    try:
        response = await client.post("/tts", json=body)
    except httpx.TransportError as error:
        raise server.failure(f"no answer to {utterance.text!r}: {type(error).__name__}") from error
    answered = time.perf_counter()
    if response.status_code != httpx.codes.OK:
        raise server.failure(f"HTTP {response.status_code} for {utterance.text!r}: {response.text[:500]}")
    try:
        return answered, wav_seconds(response.content)
    except BadAudioError as error:
        raise server.failure(f"the answer to {utterance.text!r} is not audio: {error}") from error


async def _sample_memory(watch: MemoryWatch) -> None:
    while True:
        watch.sample()
        await asyncio.sleep(_SAMPLE_INTERVAL_SECONDS)


@dataclass(frozen=True)
class _CpuTimes:
    """CPU seconds of the server under load, of the idle server, and of the whole machine."""

    active: float
    idle: float
    machine: float

    @classmethod
    def now(cls, server: Server, idle: Server | None) -> _CpuTimes:
        return cls(server.cpu_seconds(), idle.cpu_seconds() if idle is not None else 0.0, machine_cpu_seconds())

    def __sub__(self, before: _CpuTimes) -> _CpuTimes:
        return _CpuTimes(self.active - before.active, self.idle - before.idle, self.machine - before.machine)
