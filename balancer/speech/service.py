"""The speech service: one request to one finished piece of audio, kept, shared with an identical request, or made.

Two steps, each looked up and done once for all who ask at the same time: a *sound* is what a worker speaks, as PCM; a
*file* is a sound at one speed in one format. Splitting belongs here, too, around the dispatch.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from balancer.audio.encoder import duration, encode, is_cheap
from balancer.audio.formats import AudioFormat
from balancer.cache.best_effort import BestEffortCache
from balancer.dispatch.dispatcher import Dispatcher, Terms
from balancer.errors import ChorusError, DeadlineExceededError, InvalidRequestError
from balancer.metrics import Metrics
from balancer.requests.cache_control import CacheOutcome
from balancer.requests.speech_request import RequestContext, SpeechRequest, time_limit
from balancer.speech.cache_keys import CacheKeys
from balancer.speech.single_flight import SingleFlight
from worker.cards import EngineCard
from worker.contract import Utterance


@dataclass(frozen=True)
class Audio:
    """Finished audio: the bytes of a file in `format`, `seconds` long."""

    data: bytes
    format: AudioFormat
    sample_rate: int
    seconds: float
    outcome: CacheOutcome = CacheOutcome.MISS


@dataclass(frozen=True)
class CachedResult:
    """A sound or a file, how long the sound lasts at speed 1, and whether it was made for this."""

    data: bytes
    seconds: float
    outcome: CacheOutcome
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Task:
    """One request on its way through the service."""

    request: SpeechRequest
    context: RequestContext
    deadline: float | None
    """The client's own, on the event loop's clock."""
    sound: str
    """Key of the sound."""

    @property
    def coalescing_key(self) -> str:
        """Requests share work only where this is equal.

        A refresh must not join work begun before it, nor an interactive request wait at the priority of batch work.
        """
        return f"{self.request.priority.value}{'' if self.context.cache.reads else ' refresh'}"


class SpeechService:
    """Speaks requests with one engine within `timeout` seconds each."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        metrics: Metrics,
        card: EngineCard,
        *,
        timeout: float,
        log_text: bool = False,
        cache: BestEffortCache,
    ) -> None:
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._card = card
        self._timeout = timeout
        self._log_text = log_text
        self._cache = cache
        self._sounds: SingleFlight[CachedResult] = SingleFlight()
        self._files: SingleFlight[CachedResult] = SingleFlight()
        self.keys: CacheKeys | None = None
        """Makes the keys of audio; as long as it is not set, nothing is kept or shared."""

    async def synthesize(self, request: SpeechRequest, context: RequestContext) -> Audio:
        """Speak and encode. Raises ChorusError; cancelling it cancels the utterance, unless others want it, too."""
        context.facts.update(characters=len(request.text), voice=request.voice.name, caller=context.caller)
        if self._log_text:
            context.facts["text"] = request.text
        limit, deadline = self._limit(request, context)
        try:
            async with asyncio.timeout_at(None if limit is None else context.arrived + limit):
                made = await self._make(request, context, deadline)
        except InvalidRequestError as error:
            # Only the engine could tell that it cannot say this.
            self._metrics.record_refusal(error.code)
            raise error.with_param(error.param or request.text_field) from error
        except ChorusError as error:
            self._metrics.record_refusal(error.code)
            raise
        except TimeoutError as error:
            if limit is None:
                raise
            late = DeadlineExceededError(f"not spoken within {limit:g} s; try a shorter text or a later deadline")
            self._metrics.record_refusal(late.code)
            raise late from error
        context.facts.update(made.facts, cache=made.outcome.value, audio_seconds=round(made.seconds, 3))
        self._metrics.record_cache_outcome(made.outcome.value)
        self._metrics.record_audio(made.seconds)
        return Audio(made.data, request.format, self._card.sample_rate, made.seconds / request.speed, made.outcome)

    def _limit(self, request: SpeechRequest, context: RequestContext) -> tuple[float | None, float | None]:
        """Seconds for the whole request, and the client's deadline on the event loop's clock."""
        given = time_limit(request, context)
        if given is None:
            return None if context.waits_indefinitely else self._timeout, None
        return min(given, self._timeout), context.arrived + given

    # A file, and the sound that it is made of.

    async def _make(self, request: SpeechRequest, context: RequestContext, deadline: float | None) -> CachedResult:
        keys = self.keys
        if keys is None or not context.cache.writes:
            return await self._encoded(await self._spoken(request, context, deadline), request)
        task = _Task(request, context, deadline, sound=keys.sound(request))
        if request.speed == 1 and request.format in (AudioFormat.PCM, AudioFormat.WAV):
            return await self._encoded(await self._sound(task), request)  # a copy of the sound: not kept twice
        key = keys.file(task.sound, request.speed, request.format)

        async def encode_sound() -> CachedResult:
            return await self._encoded(await self._sound(task), request)

        return await self._once(self._files, key, task, encode_sound)

    async def _sound(self, task: _Task) -> CachedResult:
        return await self._once(
            self._sounds, task.sound, task, lambda: self._spoken(task.request, task.context, task.deadline)
        )

    async def _once(
        self, under_way: SingleFlight[CachedResult], key: str, task: _Task, make: Callable[[], Awaitable[CachedResult]]
    ) -> CachedResult:
        """What is kept under the key; else what is being made; else made now, and kept.

        A request with a deadline of its own joins others but has none join it: they would share its refusal.
        """
        found = False

        async def look_or_make() -> CachedResult:
            nonlocal found
            kept = await self._cache.get(key) if task.context.cache.reads else None
            if kept is None:
                return await make()
            found = True
            return CachedResult(kept.data, kept.seconds, CacheOutcome.HIT)

        async def keep(made: CachedResult) -> None:
            if not found:
                await self._cache.put(key, made.data, made.seconds)

        flight = (key, task.coalescing_key)
        if task.deadline is not None and flight not in under_way:
            made = await look_or_make()
            await keep(made)
            return made
        made, joined = await under_way.do(flight, look_or_make, keep)
        if joined and made.outcome is CacheOutcome.MISS:
            return CachedResult(made.data, made.seconds, CacheOutcome.COALESCED)
        return made

    # The work itself.

    async def _spoken(self, request: SpeechRequest, context: RequestContext, deadline: float | None) -> CachedResult:
        spoken = await self._dispatcher.synthesize(
            Utterance(
                id=secrets.token_hex(8),
                text=request.text,
                voice=request.voice.name,
                seed=request.seed,
                parameters=request.parameters,
                request_id=context.request_id,
            ),
            Terms(context.caller, request.priority, deadline),
        )
        facts = {
            "worker": spoken.worker,
            "attempts": spoken.attempts,
            "waited": round(spoken.queue_seconds, 4),
            "compute_seconds": round(spoken.compute_seconds, 4),
        }
        return CachedResult(spoken.pcm, duration(spoken.pcm, self._card.sample_rate), CacheOutcome.MISS, facts)

    async def _encoded(self, sound: CachedResult, request: SpeechRequest) -> CachedResult:
        rate, pcm = self._card.sample_rate, sound.data
        if is_cheap(pcm, request.format, request.speed):
            data = encode(pcm, rate, request.format)
        else:
            abandoned = threading.Event()
            try:
                data = await asyncio.to_thread(encode, pcm, rate, request.format, request.speed, abandoned.is_set)
            except asyncio.CancelledError:
                abandoned.set()
                self._metrics.record_cancellation("encoding")
                self._metrics.record_wasted_seconds("cancelled", sound.facts.get("compute_seconds", 0.0))
                raise
        return CachedResult(data, sound.seconds, sound.outcome, sound.facts)
