"""The speech service: turns one speech request into one audio file.

There are two steps: a worker synthesizes PCM, then the encoder makes a file of it. The result of either is taken from
the cache, or from an identical request that is already running, or else computed. Splitting a text into several
utterances belongs here, too, around the dispatch.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from balancer.audio.encoder import duration, encode, is_cheap
from balancer.audio.formats import AudioFormat
from balancer.cache.best_effort import BestEffortCache
from balancer.dispatch.dispatcher import Dispatcher
from balancer.errors import ChorusError, DeadlineExceededError, InvalidRequestError
from balancer.metrics import Metrics
from balancer.requests.cache_control import CacheOutcome
from balancer.requests.speech_request import RequestContext, SpeechRequest, time_limit
from balancer.scheduling.queued_utterance import Terms
from balancer.speech.cache_keys import CacheKeys
from balancer.speech.single_flight import SingleFlight
from worker.cards import EngineCard
from worker.contract import Utterance


@dataclass(frozen=True)
class Audio:
    """A finished audio file."""

    data: bytes
    format: AudioFormat
    sample_rate: int
    """Of the engine, in Hz."""
    seconds: float
    """Duration, after the tempo change."""
    outcome: CacheOutcome = CacheOutcome.MISS


@dataclass(frozen=True)
class SynthesisStats:
    """The cost of synthesizing one utterance."""

    worker: int | None
    """Index of the worker."""
    attempts: int
    queue_seconds: float
    compute_seconds: float


@dataclass(frozen=True)
class CachedResult:
    """PCM or a file, as the cache stores it."""

    data: bytes
    seconds: float
    """Duration at speed 1."""
    outcome: CacheOutcome
    stats: SynthesisStats | None = None
    """None if no worker synthesized it for this request."""


@dataclass(frozen=True)
class _Task:
    """One request that may use the cache and share the work of others."""

    request: SpeechRequest
    context: RequestContext
    deadline: float | None
    """The client's own, on the event loop's clock."""
    pcm_key: str

    @property
    def coalescing_key(self) -> str:
        """Requests share work only where this is equal.

        A refresh must not join work begun before it, nor an interactive request wait at the priority of batch work.
        """
        return f"{self.request.priority.value}{'' if self.context.cache.reads else ' refresh'}"


class SpeechService:
    """Synthesizes requests with one engine, each within `timeout` seconds.

    With `keys` None, nothing is cached or shared.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        metrics: Metrics,
        card: EngineCard,
        *,
        timeout: float,
        cache: BestEffortCache,
        keys: CacheKeys | None,
        log_text: bool = False,
    ) -> None:
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._card = card
        self._timeout = timeout
        self._cache = cache
        self._keys = keys
        self._log_text = log_text
        self._pcm_flights: SingleFlight[CachedResult] = SingleFlight()
        self._file_flights: SingleFlight[CachedResult] = SingleFlight()

    async def synthesize(self, request: SpeechRequest, context: RequestContext) -> Audio:
        """Synthesize and encode.

        Raises ChorusError. Cancelling this cancels the utterance, unless another request shares it.
        """
        fields = context.log_fields
        fields.characters = len(request.text)
        fields.voice = request.voice.name
        fields.caller = context.caller
        if self._log_text:
            fields.text = request.text
        limit, deadline = self._limit(request, context)
        try:
            async with asyncio.timeout_at(None if limit is None else context.arrived + limit):
                result = await self._result(request, context, deadline)
        except InvalidRequestError as error:
            # The engine refused the text: validation cannot foresee this.
            self._metrics.record_refusal(error.code)
            raise error.with_param(error.param or request.text_field) from error
        except ChorusError as error:
            self._metrics.record_refusal(error.code)
            raise
        except TimeoutError as error:
            if limit is None:
                raise
            late = DeadlineExceededError(
                f"the audio was not complete within {limit:g} s; send a shorter text or a later deadline"
            )
            self._metrics.record_refusal(late.code)
            raise late from error
        if result.stats is not None:
            fields.worker = result.stats.worker
            fields.attempts = result.stats.attempts
            fields.waited = round(result.stats.queue_seconds, 4)
            fields.compute_seconds = round(result.stats.compute_seconds, 4)
        fields.cache = result.outcome.value
        fields.audio_seconds = round(result.seconds, 3)
        self._metrics.record_cache_outcome(result.outcome.value)
        self._metrics.record_audio(result.seconds)
        seconds = result.seconds / request.speed
        return Audio(result.data, request.format, self._card.sample_rate, seconds, result.outcome)

    def _limit(self, request: SpeechRequest, context: RequestContext) -> tuple[float | None, float | None]:
        """The time limit of the request in seconds, and the client's deadline on the event loop's clock."""
        given = time_limit(request, context)
        if given is None:
            return None if context.waits_indefinitely else self._timeout, None
        return min(given, self._timeout), context.arrived + given

    # From the cache, from a running request, or computed

    async def _result(self, request: SpeechRequest, context: RequestContext, deadline: float | None) -> CachedResult:
        if self._keys is None or not context.cache.writes:
            return await self._encode(await self._synthesize(request, context, deadline), request)
        task = _Task(request, context, deadline, pcm_key=await self._keys.pcm(request, context.caller))
        if request.speed == 1 and request.format in (AudioFormat.PCM, AudioFormat.WAV):
            return await self._encode(await self._pcm(task), request)  # a copy of the PCM: not stored twice
        key = self._keys.file(task.pcm_key, request.speed, request.format)

        async def encode_pcm() -> CachedResult:
            return await self._encode(await self._pcm(task), request)

        return await self._cached(self._file_flights, key, task, encode_pcm)

    async def _pcm(self, task: _Task) -> CachedResult:
        return await self._cached(
            self._pcm_flights, task.pcm_key, task, lambda: self._synthesize(task.request, task.context, task.deadline)
        )

    async def _cached(
        self, flights: SingleFlight[CachedResult], key: str, task: _Task, compute: Callable[[], Awaitable[CachedResult]]
    ) -> CachedResult:
        """The cached result under `key`, or that of a running request, or else a computed one, which is then stored.

        A request with a deadline of its own may join others, but none may join it: they would share its refusal.
        """
        found = False

        async def get_or_compute() -> CachedResult:
            nonlocal found
            cached = await self._cache.get(key) if task.context.cache.reads else None
            if cached is None:
                return await compute()
            found = True
            return CachedResult(cached.data, cached.seconds, CacheOutcome.HIT)

        async def store(result: CachedResult) -> None:
            if not found:
                await self._cache.put(key, result.data, result.seconds)

        flight_key = (key, task.coalescing_key)
        if task.deadline is not None and flight_key not in flights:
            result = await get_or_compute()
            await store(result)
            return result
        result, joined = await flights.do(flight_key, get_or_compute, store)
        if joined and result.outcome is CacheOutcome.MISS:
            return CachedResult(result.data, result.seconds, CacheOutcome.COALESCED)
        return result

    # The work itself

    async def _synthesize(
        self, request: SpeechRequest, context: RequestContext, deadline: float | None
    ) -> CachedResult:
        synthesis = await self._dispatcher.synthesize(
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
        stats = SynthesisStats(synthesis.worker, synthesis.attempts, synthesis.queue_seconds, synthesis.compute_seconds)
        return CachedResult(synthesis.pcm, duration(synthesis.pcm, self._card.sample_rate), CacheOutcome.MISS, stats)

    async def _encode(self, pcm: CachedResult, request: SpeechRequest) -> CachedResult:
        rate = self._card.sample_rate
        if is_cheap(pcm.data, request.format, request.speed):
            data = encode(pcm.data, rate, request.format)
        else:
            abandoned = threading.Event()
            try:
                data = await asyncio.to_thread(encode, pcm.data, rate, request.format, request.speed, abandoned.is_set)
            except asyncio.CancelledError:
                abandoned.set()
                self._metrics.record_cancellation("encoding")
                wasted = 0.0 if pcm.stats is None else pcm.stats.compute_seconds
                self._metrics.record_wasted_seconds("cancelled", wasted)
                raise
        return CachedResult(data, pcm.seconds, pcm.outcome, pcm.stats)
