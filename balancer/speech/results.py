"""The results of the speech service: audio files, and the PCM that they are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from balancer.audio.buffers import AudioBuffer
from balancer.audio.formats import AudioFormat
from balancer.requests.cache_control import CacheOutcome


@dataclass(frozen=True)
class Audio:
    """A finished audio file."""

    data: AudioBuffer
    format: AudioFormat
    sample_rate: int
    """Of the engine, in Hz."""
    seconds: float
    """Duration, after the tempo change."""
    outcome: CacheOutcome = CacheOutcome.MISS
    segments: tuple[CacheOutcome, ...] = ()
    """The outcome of each segment; empty for a file that was not made for this request."""
    retakes: int = 0
    """Takes that workers discarded for this request."""
    flaws: frozenset[str] = frozenset()
    """The flaws of segments of which no take was good, as far as the workers can tell."""


@dataclass(frozen=True)
class SynthesisStats:
    """The cost of synthesizing one utterance."""

    worker: int | None
    """Index of the worker."""
    attempts: int
    queue_seconds: float
    compute_seconds: float
    retakes: int = 0
    """Takes that the worker discarded."""


@dataclass(frozen=True)
class CachedResult:
    """PCM or a file, as the cache stores it."""

    data: AudioBuffer
    seconds: float
    """Duration at speed 1."""
    outcome: CacheOutcome
    stats: SynthesisStats | None = None
    """None if no worker synthesized it for this request."""
    segments: tuple[CacheOutcome, ...] = ()
    """The outcomes of the segments that were joined for it."""
    flaws: frozenset[str] = frozenset()
    """Its flaws, as far as the workers can tell; the cache never keeps flawed audio."""


def joined_result(data: AudioBuffer, seconds: float, spoken: Sequence[CachedResult]) -> CachedResult:
    """The result of a text whose segments have these results; `data` and `seconds` are those of the whole."""
    outcomes = tuple(result.outcome for result in spoken)
    return CachedResult(
        data,
        seconds,
        CacheOutcome.of_segments(outcomes) if outcomes else CacheOutcome.MISS,
        _stats_of_all([result.stats for result in spoken if result.stats is not None]),
        outcomes,
        frozenset[str]().union(*(result.flaws for result in spoken)),
    )


def _stats_of_all(stats: Sequence[SynthesisStats]) -> SynthesisStats | None:
    """The cost of several utterances: the worker is that of the first, the wait that before the first began."""
    if not stats:
        return None
    return SynthesisStats(
        worker=stats[0].worker,
        attempts=max(one.attempts for one in stats),
        queue_seconds=min(one.queue_seconds for one in stats),
        compute_seconds=sum(one.compute_seconds for one in stats),
        retakes=sum(one.retakes for one in stats),
    )
