"""The speech service: turns one speech request into one audio file, or into a stream of its pieces.

A text is spoken in segments, as many at once as there are slots. For each, a worker synthesizes PCM; the encoder makes
a file of all, joined. A segment's PCM and the file are taken from the cache, or from an identical request that is
already running, or else computed. The segments of a job are given to a keeper as they are finished, and the file is
made of what it has kept.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NoReturn

from balancer.audio.buffers import MemoryBuffer
from balancer.audio.encoder import as_file, is_pcm_copy
from balancer.audio.held_audio import HeldAudio
from balancer.audio.joining import JoinedFiles, join
from balancer.audio.pcm import duration
from balancer.cache.best_effort import BestEffortCache
from balancer.dispatch.dispatcher import Dispatcher
from balancer.dispatch.early_audio import EarlyAudio
from balancer.errors import ChorusError, DeadlineExceededError, InvalidRequestError, NotServingError
from balancer.metrics import Metrics
from balancer.requests.cache_control import CacheOutcome
from balancer.requests.speech_request import RequestContext, SpeechRequest, time_limit
from balancer.runtime.thread_pool import ThreadPool
from balancer.scheduling.queued_utterance import Terms
from balancer.scheduling.stream_headroom import StreamHeadroom
from balancer.settings.speech import PauseSettings, StreamSettings
from balancer.speech.audio_stream import AudioStream
from balancer.speech.cache_keys import CacheKeys
from balancer.speech.concurrent_segments import speak_all
from balancer.speech.encoder_pool import EncoderPool
from balancer.speech.place import Place
from balancer.speech.results import Audio, CachedResult, SynthesisStats, joined_result
from balancer.speech.segment_keeper import SegmentKeeper
from balancer.speech.segment_requests import begin_soon, pauses_around, request_of, segments_of
from balancer.speech.single_flight import SingleFlight
from balancer.text.segments import Segment
from worker.cards import EngineCard
from worker.checkpoints.fingerprint import digest_of
from worker.contract import SAMPLE_BYTES, Utterance

UNSPEAKABLE = "unspeakable"
"""Code of the engine's refusal of a text that it cannot say."""
MAX_STRETCHED_BYTES = 16 * 2**20
"""A file that is larger than its PCM is cached up to this size."""


@dataclass(frozen=True)
class _Task:
    """One request, and where the work for it waits."""

    request: SpeechRequest
    context: RequestContext
    place: Place
    segments: Sequence[Segment]
    first_piece_tokens: int | None = None
    """Speech tokens after which the audio's first piece is made, in its first segment; None: no piece is wanted."""
    early: EarlyAudio | None = None
    """Hands on the PCM of a single segment while it is made."""

    @property
    def one_utterance(self) -> bool:
        """Whether the text is one segment, with no silence around it."""
        first = self.segments[0]
        return len(self.segments) == 1 and not first.leading_silence and not first.silence

    def request_of(self, number: int) -> SpeechRequest:
        """The request for a segment."""
        return self.request if self.one_utterance else request_of(self.segments[number], number, self.request)

    def first_piece_of(self, number: int) -> int | None:
        """`first_piece_tokens` of a segment."""
        return self.first_piece_tokens if number == 0 else None

    @property
    def deadline(self) -> float | None:
        """The client's own, on the event loop's clock."""
        return self.place.terms.deadline


class SpeechService:
    """Synthesizes requests with one engine, each within `timeout` seconds.

    With `cache_keys` None, nothing is cached or shared.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        metrics: Metrics,
        card: EngineCard,
        *,
        timeout: float,
        pauses: PauseSettings,
        streams: StreamSettings,
        held: HeldAudio,
        encoders: EncoderPool,
        headroom: StreamHeadroom,
        cache: BestEffortCache,
        cache_keys: CacheKeys | None,
        log_text: bool = False,
    ) -> None:
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._card = card
        self._timeout = timeout
        self._pauses = pauses
        self._streams = streams
        self._held = held
        self._encoders = encoders
        self._headroom = headroom
        self._cache = cache
        self._cache_keys = cache_keys
        self._log_text = log_text
        self._first_piece_tokens = streams.first_piece_tokens(early_audio=card.early_audio)
        self._pool = ThreadPool("kept-segments", 1)
        self._pcm_flights: SingleFlight[CachedResult] = SingleFlight()
        self._file_flights: SingleFlight[CachedResult] = SingleFlight()

    async def synthesize(
        self, request: SpeechRequest, context: RequestContext, keeper: SegmentKeeper | None = None
    ) -> Audio:
        """Synthesize and encode. `keeper` gets the segments of a text of several; those that it has are not spoken.

        Raises ChorusError, OSError where kept segments cannot be read, and as the keeper. Cancelling this cancels the
        utterance, unless another request shares it.
        """
        return await self._whole(request, context, keeper, None)

    async def _whole(
        self,
        request: SpeechRequest,
        context: RequestContext,
        keeper: SegmentKeeper | None,
        first_piece_tokens: int | None,
    ) -> Audio:
        self._log(request, context)
        limit, deadline = self._limit(request, context)
        try:
            async with asyncio.timeout_at(None if limit is None else context.arrived + limit):
                place = Place(Terms(context.caller_id, request.priority, deadline))
                if keeper is None:
                    segments = segments_of(request, self._card.segments)
                else:
                    segments = await self._pool.run(lambda: segments_of(request, self._card.segments))
                task = _Task(request, context, place, segments, first_piece_tokens)
                if keeper is None or len(segments) == 1:
                    result = await self._result(task)
                else:
                    result = await self._encode(await self._kept(task, keeper), task)
        except (ChorusError, TimeoutError) as error:
            self._refuse(error, request, limit)
        self._record(result, context)
        seconds = result.seconds / request.speed
        rate = self._card.sample_rate
        retakes = 0 if result.stats is None else result.stats.retakes
        return Audio(result.data, request.format, rate, seconds, result.outcome, result.segments, retakes, result.flaws)

    async def segmentation(self, request: SpeechRequest, context: RequestContext) -> tuple[Sequence[Segment], str]:
        """The segments of a text that is given to a keeper, and the digest that they are kept by."""
        segments = await self._pool.run(lambda: segments_of(request, self._card.segments))
        task = _Task(request, context, Place(Terms(context.caller_id, request.priority, None)), segments)
        return segments, await self._segmentation(task)

    async def stream(self, request: SpeechRequest, context: RequestContext) -> Audio | AudioStream:
        """The audio as it is made, from its first piece on; or whole, if it is cached, or one segment made in one go.

        A stream is to be closed. Raises ChorusError.
        """
        whole = segments_of(request, self._card.segments)
        segments = begin_soon(whole, request, self._card.segments)
        limit, deadline = self._limit(request, context)
        place = Place(Terms(context.caller_id, request.priority, deadline))
        task = _Task(request, context, place, segments, self._first_piece_tokens)
        if (len(segments) == 1 and self._first_piece_tokens is None) or await self._is_cached(task, whole):
            return await self._whole(request, context, None, task.first_piece_tokens if task.one_utterance else None)
        if not self._headroom.admits(request.speed) and await self._characters_to_speak(task):
            self._refuse(self._headroom.refusal(asyncio.get_running_loop().time()), request, limit)
        self._log(request, context)
        stream = AudioStream(
            segments,
            partial(self._speak_to, task),
            [self._dispatcher.host_state.audio_seconds(len(segment.text)) for segment in segments],
            request,
            task.place,
            sample_rate=self._card.sample_rate,
            pauses=self._pauses,
            settings=self._streams,
            timeout=self._timeout if limit is None else limit,
            held=self._held,
            encoders=self._encoders,
            metrics=self._metrics,
            headroom=self._headroom,
            on_end=partial(self._record, context=context),
        )
        try:
            if deadline is not None:
                self._dispatcher.check_text(await self._characters_to_speak(task), deadline)
            async with asyncio.timeout_at(None if limit is None else context.arrived + limit):
                await stream.begin()
        except (ChorusError, TimeoutError) as error:
            await stream.aclose()
            self._refuse(error, request, limit)
        except BaseException:
            await stream.aclose()
            raise
        return stream

    async def _is_cached(self, task: _Task, segments: Sequence[Segment]) -> bool:
        """Whether the cache has the file of the whole text, which has these segments, or of a single one its PCM."""
        request = task.request
        if self._cache_keys is None or not task.context.cache.reads:
            return False
        if task.one_utterance:
            return await self._cache.get(await self._pcm_key(task, self._cache_keys)) is not None
        if is_pcm_copy(request.format, request.speed):
            return False
        pcm_key = await self._cache_keys.pcm(request, task.context.caller_id)
        return await self._cache.get(self._file_key(pcm_key, request, segments)) is not None

    def _log(self, request: SpeechRequest, context: RequestContext) -> None:
        """Set the log fields of a request that arrives."""
        fields = context.log_fields
        fields.characters = len(request.text)
        fields.voice = request.voice.name
        fields.caller = context.caller
        if self._log_text:
            fields.text = request.text

    def _record(self, result: CachedResult, context: RequestContext) -> None:
        """Set the log fields and count the metrics of a request that is answered."""
        fields = context.log_fields
        if result.stats is not None:
            fields.worker = result.stats.worker
            fields.attempts = result.stats.attempts
            fields.queue_seconds = round(result.stats.queue_seconds, 4)
            fields.compute_seconds = round(result.stats.compute_seconds, 4)
            fields.retakes = result.stats.retakes or None
        fields.flaws = sorted(result.flaws) or None
        fields.cache = result.outcome.value
        fields.audio_seconds = round(result.seconds, 3)
        self._metrics.record_cache_outcome(result.outcome.value)
        self._metrics.record_audio(result.seconds)

    def _refuse(self, error: ChorusError | TimeoutError, request: SpeechRequest, limit: float | None) -> NoReturn:
        """Raise the error of a request that fails, and count it."""
        if isinstance(error, TimeoutError):
            if limit is None:
                raise error
            refusal: ChorusError = DeadlineExceededError(
                f"the audio was not complete within {limit:g} s; send a shorter text or a later deadline"
            )
        elif isinstance(error, InvalidRequestError):
            # The engine refused the text: validation cannot foresee this.
            refusal = error.with_param(error.param or request.text_field)
        else:
            refusal = error
        self._metrics.record_refusal(refusal.code)
        if refusal is error:
            raise error  # not from itself: a cycle would leave what it refers to to the garbage collector
        raise refusal from error

    def _limit(self, request: SpeechRequest, context: RequestContext) -> tuple[float | None, float | None]:
        """The time limit of the request in seconds, and the client's deadline on the event loop's clock."""
        given = time_limit(request, context)
        if given is None:
            return None if context.waits_indefinitely else self._timeout, None
        return min(given, self._timeout), context.arrived + given

    # From the cache, from a running request, or computed

    async def _result(self, task: _Task) -> CachedResult:
        request = task.request
        if is_pcm_copy(request.format, request.speed) or self._cache_keys is None or not task.context.cache.writes:
            # A copy of the PCM is not stored twice.
            return await self._encode(await self._pcm(task), task)
        pcm_key = await self._pcm_key(task, self._cache_keys)
        key = self._file_key(pcm_key, request, task.segments)

        async def encode_pcm() -> CachedResult:
            return await self._encode(await self._pcm(task, pcm_key), task)

        return await self._cached(self._file_flights, key, task, encode_pcm)

    def _file_key(self, pcm_key: str, request: SpeechRequest, segments: Sequence[Segment]) -> str:
        """The cache key of the file for a whole text; `pcm_key` is that of its PCM."""
        lengths = [len(segment.text) for segment in segments]
        return CacheKeys.file(pcm_key, request.speed, request.format, lengths, pauses_around(segments, self._pauses))

    async def _pcm(self, task: _Task, key: str | None = None) -> CachedResult:
        """The PCM of a text; `key` is the text's cache key, if it is known."""
        if task.one_utterance:
            return await self._segment(task, key)
        spoken = await self._all_segments(task)
        pauses = pauses_around([segment for segment, _ in spoken], self._pauses)
        parts = [result.data for _, result in spoken]
        rate = self._card.sample_rate
        data = await self._held.assemble(task.context.caller_id, partial(join, parts, pauses, rate))
        return joined_result(data, duration(len(data), rate), [result for _, result in spoken])

    async def _segment(self, task: _Task, key: str | None = None) -> CachedResult:
        """The PCM of a task of one segment; `key` is its cache key, if it is known."""
        if self._cache_keys is None or not task.context.cache.writes:
            return await self._synthesize(task)
        key = key or await self._pcm_key(task, self._cache_keys)
        return await self._cached(self._pcm_flights, key, task, lambda: self._synthesize(task))

    async def _all_segments(self, task: _Task) -> list[tuple[Segment, CachedResult]]:
        """The segments that can be spoken, in order, with their PCM.

        Raises InvalidRequestError if none can be spoken. If one fails, the others are cancelled.
        """
        if task.deadline is not None:
            self._dispatcher.check_text(await self._characters_to_speak(task), task.deadline)
        results: dict[int, CachedResult | InvalidRequestError] = {}

        async def take(number: int, result: CachedResult | InvalidRequestError) -> None:
            results[number] = result

        await self._speak(task, range(len(task.segments)), take)
        spoken = [
            (segment, result)
            for number, segment in enumerate(task.segments)
            if isinstance(result := results[number], CachedResult)
        ]
        if not spoken:
            raise next(result for result in results.values() if isinstance(result, InvalidRequestError))
        return spoken

    async def _kept(self, task: _Task, keeper: SegmentKeeper) -> CachedResult:
        """The PCM of a text, read from its kept segments. Those that are not kept yet are spoken first."""
        silence = MemoryBuffer(b"")
        spoken: list[CachedResult | InvalidRequestError] = []

        async def keep(number: int, result: CachedResult | InvalidRequestError) -> None:
            if isinstance(result, CachedResult):
                await keeper.keep(number, result.data)
                spoken.append(replace(result, data=silence))
            else:
                await keeper.keep(number, silence)
                spoken.append(result)

        total = len(task.segments)
        kept = await keeper.begin(await self._segmentation(task), total)
        missing = [number for number in range(total) if number not in kept]
        await self._speak(task, missing, keep, lambda: keeper.stops)
        if len(spoken) < len(missing):
            left = len(missing) - len(spoken)
            raise NotServingError(f"this server stops; {left} of {total} segments are left to be spoken")
        files = await keeper.files()
        data = await self._pool.run(lambda: self._joined(task.segments, files))
        results = [result for result in spoken if isinstance(result, CachedResult)]
        return joined_result(data, duration(len(data), self._card.sample_rate), results)

    def _joined(self, segments: Sequence[Segment], files: Sequence[Path]) -> JoinedFiles:
        """Kept segments, joined; blocks. Raises InvalidRequestError if none of them could be spoken."""
        spoken = [(segment, file) for segment, file in zip(segments, files, strict=True) if file.stat().st_size]
        if not spoken:
            raise InvalidRequestError("nothing in the text can be spoken", code=UNSPEAKABLE)
        pauses = pauses_around([segment for segment, _ in spoken], self._pauses)
        return JoinedFiles([file for _, file in spoken], pauses, self._card.sample_rate)

    async def _segmentation(self, task: _Task) -> str:
        """A digest of all that determines the PCM of a task's segments, as far as it is known without a cache."""
        request = task.request
        if self._cache_keys is not None:
            voiced = await self._cache_keys.pcm(request, task.context.caller_id)
        else:
            seed = request.seed if request.seeded else None
            voiced = digest_of([self._card.name, request.voice.name, request.text, request.parameters, seed])
        return digest_of([voiced, [segment.text for segment in task.segments]])

    async def _speak(
        self,
        task: _Task,
        numbers: Iterable[int],
        take: Callable[[int, CachedResult | InvalidRequestError], Awaitable[None]],
        stops: Callable[[], bool] = lambda: False,
        stream: AudioStream | None = None,
    ) -> None:
        """Speak these segments, and give each to `take`, or the refusal of one that the engine cannot say.

        At most as many are under way as there are slots. None is begun once `stops()`. If one fails, the others are
        cancelled.
        """
        admitted = False

        async def speak(number: int) -> None:
            nonlocal admitted
            playout_deadline = None if stream is None else stream.playout_deadline(number)
            place = Place(replace(task.place.terms, admitted=admitted, playout_deadline=playout_deadline))
            try:
                with task.place.followed_by(place.improve):
                    result = await self._segment(self._segment_task(task, number, place, stream))
            except InvalidRequestError as error:
                if error.code != UNSPEAKABLE:
                    raise
                await take(number, error)  # the others may be spoken
            else:
                admitted = True
                await take(number, result)

        await speak_all(numbers, speak, lambda: self._dispatcher.host_state.slots, stops)

    async def _speak_to(self, task: _Task, stream: AudioStream) -> None:
        """Speak all segments to a stream, which gets each while it is made, if the engine can."""
        await self._speak(task, range(len(task.segments)), stream.take, stream=stream)

    def _segment_task(self, task: _Task, number: int, place: Place, stream: AudioStream | None) -> _Task:
        early = None
        if stream is not None and task.first_piece_tokens is not None:
            early = EarlyAudio(partial(stream.on_pcm, number))
        first_piece_tokens = task.first_piece_of(number)
        return _Task(task.request_of(number), task.context, place, [task.segments[number]], first_piece_tokens, early)

    async def _characters_to_speak(self, task: _Task) -> int:
        """Characters of the segments that are not in the cache."""
        if self._cache_keys is None or not task.context.cache.reads:
            return len(task.request.text)
        missing = 0
        for number, segment in enumerate(task.segments):
            request, first_piece_tokens = task.request_of(number), task.first_piece_of(number)
            key = await self._cache_keys.pcm(request, task.context.caller_id, first_piece_tokens)
            missing += 0 if await self._cache.get(key) else len(segment.text)
        return missing

    async def _cached(
        self, flights: SingleFlight[CachedResult], key: str, task: _Task, compute: Callable[[], Awaitable[CachedResult]]
    ) -> CachedResult:
        """The cached result under `key`, or that of a running request, or else a computed one, which is then stored.

        A request with a deadline of its own may join others, but none may join it: they would share its refusal. A
        refresh must not join work begun before it.
        """
        found = False

        async def get_or_compute() -> CachedResult:
            nonlocal found
            cached = await self._cache.get(key) if task.context.cache.reads else None
            if cached is None:
                return await compute()
            found = True
            data = await self._held.hold(cached.data, task.context.caller_id)
            return CachedResult(data, cached.seconds, CacheOutcome.HIT)

        async def store(result: CachedResult) -> None:
            if not found and self._worth_storing(result):
                await self._cache.put(key, result.data, result.seconds, task.context.caller_id)

        flight_key = (key, task.context.cache.reads)
        if task.deadline is not None and flight_key not in flights:
            result = await get_or_compute()
            await store(result)
            return result
        result, joined = await flights.do(flight_key, get_or_compute, store, task.place, task.early)
        if joined and result.outcome is CacheOutcome.MISS:
            return CachedResult(result.data, result.seconds, CacheOutcome.COALESCED, flaws=result.flaws)
        return result

    def _worth_storing(self, result: CachedResult) -> bool:
        """Whether the cache keeps this.

        Not a large file at a slow speed, which is soon made again from its PCM, nor flawed audio: the next request may
        have better luck.
        """
        if result.flaws:
            return False
        pcm_bytes = result.seconds * self._card.sample_rate * SAMPLE_BYTES
        return len(result.data) <= max(MAX_STRETCHED_BYTES, 1.01 * pcm_bytes)

    async def _pcm_key(self, task: _Task, keys: CacheKeys) -> str:
        """The cache key of a task's PCM."""
        return await keys.pcm(task.request, task.context.caller_id, task.first_piece_tokens)

    # The work itself

    async def _synthesize(self, task: _Task) -> CachedResult:
        request = task.request
        utterance = Utterance(
            id=os.urandom(8).hex(),
            text=request.text,
            voice=request.voice.name,
            seed=request.seed,
            parameters=request.parameters,
            first_piece_tokens=task.first_piece_tokens,
            request_id=task.context.request_id,
        )
        with task.place.followed_by(partial(self._dispatcher.improve, utterance.id)):
            synthesis = await self._dispatcher.synthesize(utterance, task.place.terms, task.early)
        stats = SynthesisStats(
            synthesis.worker,
            synthesis.attempts,
            synthesis.queue_seconds,
            synthesis.compute_seconds,
            synthesis.retakes,
        )
        flaws = frozenset[str]() if synthesis.flaw is None else frozenset({synthesis.flaw})
        seconds = duration(len(synthesis.pcm), self._card.sample_rate)
        pcm = await self._held.hold(MemoryBuffer(synthesis.pcm), task.context.caller_id)
        return CachedResult(pcm, seconds, CacheOutcome.MISS, stats, flaws=flaws)

    async def _encode(self, pcm: CachedResult, task: _Task) -> CachedResult:
        request, rate = task.request, self._card.sample_rate
        if is_pcm_copy(request.format, request.speed):
            data = as_file(pcm.data, rate, request.format)
        else:
            try:
                data = await self._encoders.encode(pcm.data, rate, request.format, request.speed, task.place)
            except asyncio.CancelledError:
                self._metrics.record_cancellation("encoding")
                wasted = 0.0 if pcm.stats is None else pcm.stats.compute_seconds
                self._metrics.record_wasted_seconds("cancelled", wasted)
                raise
        return replace(pcm, data=data)
