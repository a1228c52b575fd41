"""Speaks the text of a task: segment by segment, from the cache, an identical running request, or a worker.

A text is spoken in segments, as many at once as there are slots. For each, a worker synthesizes PCM; the encoder makes
a file of all, joined. A segment's PCM and the file are taken from the cache, or from an identical request that is
already running, or else computed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from balancer.audio.buffers import MemoryBuffer
from balancer.audio.encoder import as_file, is_pcm_copy
from balancer.audio.held_audio import HeldAudio
from balancer.audio.joining import JoinedFiles, join
from balancer.audio.pcm import duration
from balancer.cache.best_effort import BestEffortCache
from balancer.dispatch.dispatcher import Dispatcher
from balancer.dispatch.early_audio import EarlyAudio
from balancer.errors import InvalidRequestError, NotServingError
from balancer.metrics import Metrics
from balancer.requests.cache_control import CacheOutcome
from balancer.requests.speech_request import SpeechRequest
from balancer.runtime.thread_pool import ThreadPool
from balancer.settings.speech import PauseSettings
from balancer.speech.audio_stream import AudioStream
from balancer.speech.cache_keys import CacheKeys
from balancer.speech.concurrent_segments import speak_all
from balancer.speech.encoder_pool import EncoderPool
from balancer.speech.place import Place
from balancer.speech.results import CachedResult, SynthesisStats, joined_result
from balancer.speech.segment_keeper import SegmentKeeper
from balancer.speech.segment_requests import pauses_around
from balancer.speech.single_flight import SingleFlight
from balancer.speech.task import SpeechTask
from balancer.text.segments import Segment
from worker.cards import EngineCard
from worker.checkpoints.fingerprint import digest_of
from worker.contract import SAMPLE_BYTES, Utterance

UNSPEAKABLE = "unspeakable"
"""Code of the engine's refusal of a text that it cannot say."""
MAX_STRETCHED_BYTES = 16 * 2**20
"""A file that is larger than its PCM is cached up to this size."""


class Synthesizer:
    """Speaks tasks with one engine. With `cache_keys` None, nothing is cached or shared."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        metrics: Metrics,
        card: EngineCard,
        *,
        pauses: PauseSettings,
        held: HeldAudio,
        encoders: EncoderPool,
        cache: BestEffortCache,
        cache_keys: CacheKeys | None,
    ) -> None:
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._card = card
        self._pauses = pauses
        self._held = held
        self._encoders = encoders
        self._cache = cache
        self._cache_keys = cache_keys
        self._pool = ThreadPool("kept-segments", 1)
        self._pcm_flights: SingleFlight[CachedResult] = SingleFlight()
        self._file_flights: SingleFlight[CachedResult] = SingleFlight()

    async def file(self, task: SpeechTask) -> CachedResult:
        """The file of a task, joined and encoded. Raises ChorusError."""
        request = task.request
        if is_pcm_copy(request.format, request.speed) or self._cache_keys is None or not task.context.cache.writes:
            # A copy of the PCM is not stored twice.
            return await self._encode(await self._pcm(task), task)
        pcm_key = await self._pcm_key(task, self._cache_keys)
        key = self._file_key(pcm_key, request, task.segments)

        async def encode_pcm() -> CachedResult:
            return await self._encode(await self._pcm(task, pcm_key), task)

        return await self._cached(self._file_flights, key, task, encode_pcm)

    async def kept_file(self, task: SpeechTask, keeper: SegmentKeeper) -> CachedResult:
        """The file of a text of several segments, made of what `keeper` keeps: what it has is not spoken again.

        Raises ChorusError, OSError where kept segments cannot be read, and as the keeper.
        """
        return await self._encode(await self._kept(task, keeper), task)

    async def stream_to(self, task: SpeechTask, stream: AudioStream) -> None:
        """Speak all segments to a stream, which gets each while it is made, if the engine can."""
        await self._speak(task, range(len(task.segments)), stream.take, stream=stream)

    async def segmentation(self, task: SpeechTask) -> str:
        """A digest of all that determines the PCM of a task's segments, as far as it is known without a cache."""
        request = task.request
        if self._cache_keys is not None:
            voiced = await self._cache_keys.pcm(request, task.context.caller_id)
        else:
            seed = request.seed if request.seeded else None
            voiced = digest_of([self._card.name, request.voice.name, request.text, request.parameters, seed])
        return digest_of([voiced, [segment.text for segment in task.segments]])

    async def is_cached(self, task: SpeechTask, segments: Sequence[Segment]) -> bool:
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

    async def characters_to_speak(self, task: SpeechTask) -> int:
        """Characters of the segments that are not in the cache."""
        if self._cache_keys is None or not task.context.cache.reads:
            return len(task.request.text)
        missing = 0
        for number, segment in enumerate(task.segments):
            request, first_piece_tokens = task.request_of(number), task.first_piece_of(number)
            key = await self._cache_keys.pcm(request, task.context.caller_id, first_piece_tokens)
            missing += 0 if await self._cache.get(key) else len(segment.text)
        return missing

    def _file_key(self, pcm_key: str, request: SpeechRequest, segments: Sequence[Segment]) -> str:
        """The cache key of the file for a whole text; `pcm_key` is that of its PCM."""
        lengths = [len(segment.text) for segment in segments]
        return CacheKeys.file(pcm_key, request.speed, request.format, lengths, pauses_around(segments, self._pauses))

    async def _pcm(self, task: SpeechTask, key: str | None = None) -> CachedResult:
        """The PCM of a text; `key` is the text's cache key, if it is known."""
        if task.one_utterance:
            return await self._segment(task, key)
        spoken = await self._all_segments(task)
        pauses = pauses_around([segment for segment, _ in spoken], self._pauses)
        parts = [result.data for _, result in spoken]
        rate = self._card.sample_rate
        data = await self._held.assemble(task.context.caller_id, partial(join, parts, pauses, rate))
        return joined_result(data, duration(len(data), rate), [result for _, result in spoken])

    async def _segment(self, task: SpeechTask, key: str | None = None) -> CachedResult:
        """The PCM of a task of one segment; `key` is its cache key, if it is known."""
        if self._cache_keys is None or not task.context.cache.writes:
            return await self._synthesize(task)
        key = key or await self._pcm_key(task, self._cache_keys)
        return await self._cached(self._pcm_flights, key, task, lambda: self._synthesize(task))

    async def _all_segments(self, task: SpeechTask) -> list[tuple[Segment, CachedResult]]:
        """The segments that can be spoken, in order, with their PCM.

        Raises InvalidRequestError if none can be spoken. If one fails, the others are cancelled.
        """
        if task.deadline is not None:
            self._dispatcher.check_text(await self.characters_to_speak(task), task.deadline)
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

    async def _kept(self, task: SpeechTask, keeper: SegmentKeeper) -> CachedResult:
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
        kept = await keeper.begin(await self.segmentation(task), total)
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

    async def _speak(
        self,
        task: SpeechTask,
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
            playout_deadline = None if stream is None else stream.begin_segment(number)
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

    def _segment_task(self, task: SpeechTask, number: int, place: Place, stream: AudioStream | None) -> SpeechTask:
        early = None
        if stream is not None and task.first_piece_tokens is not None:
            early = EarlyAudio(partial(stream.on_pcm, number))
        first_piece_tokens = task.first_piece_of(number)
        return SpeechTask(
            task.request_of(number), task.context, place, [task.segments[number]], first_piece_tokens, early
        )

    async def _cached(
        self,
        flights: SingleFlight[CachedResult],
        key: str,
        task: SpeechTask,
        compute: Callable[[], Awaitable[CachedResult]],
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

    async def _pcm_key(self, task: SpeechTask, keys: CacheKeys) -> str:
        """The cache key of a task's PCM."""
        return await keys.pcm(task.request, task.context.caller_id, task.first_piece_tokens)

    async def _synthesize(self, task: SpeechTask) -> CachedResult:
        request = task.request
        utterance = Utterance(
            id=os.urandom(8).hex(),
            text=request.text,
            voice=request.voice.name,
            seed=request.seed,
            parameters=request.parameters,
            first_piece_tokens=task.first_piece_tokens,
            further_pieces=self._affords_further_pieces(task),
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

    def _affords_further_pieces(self, task: SpeechTask) -> bool:
        """Whether an utterance whose first piece is made early is made in further ones: each costs work once more.

        Not with a seed that the client chose: its audio is not to depend on the load.
        """
        wanted = task.first_piece_tokens is not None and not task.request.seeded
        return wanted and self._dispatcher.host_state.mostly_idle

    async def _encode(self, pcm: CachedResult, task: SpeechTask) -> CachedResult:
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
