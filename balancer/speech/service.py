"""The speech service: turns one speech request into one audio file, or into a stream of its pieces.

It decides whether an answer is streamed, how long it may take and what is refused, logs and counts; the synthesizer
speaks. The segments of a job are given to a keeper as they are finished, and the file is made of what it has kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import NoReturn

from balancer.audio.held_audio import HeldAudio
from balancer.dispatch.dispatcher import Dispatcher
from balancer.errors import ChorusError, DeadlineExceededError, InvalidRequestError
from balancer.metrics import Metrics
from balancer.requests.speech_request import RequestContext, SpeechRequest, time_limit
from balancer.runtime.thread_pool import ThreadPool
from balancer.scheduling.queued_utterance import Terms
from balancer.scheduling.stream_headroom import StreamHeadroom
from balancer.settings.speech import PauseSettings, StreamSettings
from balancer.speech.audio_stream import AudioStream
from balancer.speech.encoder_pool import EncoderPool
from balancer.speech.place import Place
from balancer.speech.results import Audio, CachedResult
from balancer.speech.segment_keeper import SegmentKeeper
from balancer.speech.segment_requests import begin_soon, segments_of
from balancer.speech.synthesizer import Synthesizer
from balancer.speech.task import SpeechTask
from balancer.text.segments import Segment
from worker.cards import EngineCard


class SpeechService:
    """Answers requests for one engine's speech, each within `timeout` seconds."""

    def __init__(
        self,
        synthesizer: Synthesizer,
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
        log_text: bool = False,
    ) -> None:
        self._synthesizer = synthesizer
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._card = card
        self._timeout = timeout
        self._pauses = pauses
        self._streams = streams
        self._held = held
        self._encoders = encoders
        self._headroom = headroom
        self._log_text = log_text
        self._first_piece_tokens = streams.first_piece_tokens(early_audio=card.early_audio)
        self._pool = ThreadPool("segments", 1)

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
                task = SpeechTask(request, context, place, segments, first_piece_tokens)
                if keeper is None or len(segments) == 1:
                    result = await self._synthesizer.file(task)
                else:
                    result = await self._synthesizer.kept_file(task, keeper)
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
        task = SpeechTask(request, context, Place(Terms(context.caller_id, request.priority, None)), segments)
        return segments, await self._synthesizer.segmentation(task)

    async def stream(self, request: SpeechRequest, context: RequestContext) -> Audio | AudioStream:
        """The audio as it is made, from its first piece on; or whole, if it is cached, or one segment made in one go.

        A stream is to be closed. Raises ChorusError.
        """
        whole = segments_of(request, self._card.segments)
        segments = begin_soon(whole, request, self._card.segments)
        limit, deadline = self._limit(request, context)
        place = Place(Terms(context.caller_id, request.priority, deadline))
        task = SpeechTask(request, context, place, segments, self._first_piece_tokens)
        if (len(segments) == 1 and self._first_piece_tokens is None) or await self._synthesizer.is_cached(task, whole):
            return await self._whole(request, context, None, task.first_piece_tokens if task.one_utterance else None)
        if not self._headroom.admits(request.speed) and await self._synthesizer.characters_to_speak(task):
            self._refuse(self._headroom.refusal(asyncio.get_running_loop().time()), request, limit)
        self._log(request, context)
        stream = AudioStream(
            segments,
            partial(self._synthesizer.stream_to, task),
            [self._dispatcher.host_state.audio_seconds(len(segment.text)) for segment in segments],
            self._dispatcher.host_state.pace,
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
                self._dispatcher.check_text(await self._synthesizer.characters_to_speak(task), deadline)
            async with asyncio.timeout_at(None if limit is None else context.arrived + limit):
                await stream.begin()
        except (ChorusError, TimeoutError) as error:
            await stream.aclose()
            self._refuse(error, request, limit)
        except BaseException:
            await stream.aclose()
            raise
        return stream

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
