"""The capabilities of this server, `GET /capabilities`, and a preview of a text's segments, `POST /segments`."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from balancer.access.admission import Admission
from balancer.access.caller import caller_of
from balancer.api.models.catalogue import Capabilities, EngineParameter
from balancer.api.models.speech import SegmentPreview, SegmentPreviews
from balancer.api.reading import read_json
from balancer.api.responses import JSONResponse
from balancer.audio.formats import AudioFormat
from balancer.audio.held_audio import Budget
from balancer.dispatch.host_state import HostState
from balancer.errors import QueueFullError
from balancer.requests.bodies import TtsBody
from balancer.requests.speech_request import SpeechRequest
from balancer.requests.validation import MAX_LOOP_CHARACTERS, RequestValidator
from balancer.runtime.thread_pool import PoolFullError, ThreadPool
from balancer.settings.limits import LimitSettings
from balancer.settings.speech import PauseSettings
from balancer.speech.segment_requests import begin_soon, pauses_around, segments_of
from balancer.text.segments import Segment
from worker.cards import SegmentLength

MAX_WAITING_PREVIEWS = 100
RETRY_SECONDS = 1.0
"""Pause after which a client may come back if that many previews wait."""


class CatalogueRoutes:
    """The routes. Long texts are split in a thread of their own, so that speech never waits for a preview."""

    def __init__(
        self,
        validator: RequestValidator,
        admission: Admission,
        host_state: HostState,
        memory: Budget,
        limits: LimitSettings,
        pauses: PauseSettings,
    ) -> None:
        self._validator = validator
        self._admission = admission
        self._host_state = host_state
        self._memory = memory
        self._limits = limits
        self._pauses = pauses
        self._pool = ThreadPool("previews", 1, max_waiting=MAX_WAITING_PREVIEWS)

    def close(self) -> None:
        """End the thread; does not wait for it."""
        self._pool.close()

    def routes(self) -> list[Route]:
        """The routes, for Starlette."""
        return [
            Route("/capabilities", self.capabilities),
            Route("/segments", self.segments, methods=["POST"]),
        ]

    async def capabilities(self, request: Request) -> Response:
        """The running engine, the limits, and the role of the caller."""
        card = self._validator.card
        key = caller_of(request).key
        return JSONResponse(
            Capabilities(
                engine=card.name,
                description=card.description,
                sample_rate=card.sample_rate,
                parameters=[EngineParameter.of(parameter) for parameter in card.parameters],
                tags=list(card.tags),
                clones_voices=card.clones_voices,
                formats=[audio_format.value for audio_format in AudioFormat],
                max_text_characters=self._limits.max_text_characters,
                max_job_text_characters=self._limits.job_text_characters,
                role=None if key is None else key.role,
            )
        )

    async def segments(self, request: Request) -> Response:
        """The segments of a body of `POST /tts`. Nothing is spoken, and no rate limit counts it."""
        body = await read_json(request, TtsBody, self._limits.max_body_bytes, self._memory)
        speech_request = await self._validator.validate_for_client(body)
        self._admission.check_voices(caller_of(request), [speech_request.voice.name])
        length = self._validator.card.segments
        if len(speech_request.text) <= MAX_LOOP_CHARACTERS:
            segments = _split(speech_request, length, stream=body.stream)
        else:
            try:
                segments = await self._pool.run(lambda: _split(speech_request, length, stream=body.stream))
            except PoolFullError as error:
                raise QueueFullError(
                    "too many long texts are being split; try again later", retry_after=RETRY_SECONDS
                ) from error
        return JSONResponse(self._previews(segments, speech_request))

    def _previews(self, segments: list[Segment], request: SpeechRequest) -> SegmentPreviews:
        pauses = pauses_around(segments, self._pauses)
        seconds = sum(self._host_state.audio_seconds(len(segment.text)) for segment in segments)
        return SegmentPreviews(
            characters=request.characters,
            seconds=round((seconds + sum(pauses)) / request.speed, 2),
            segments=[
                SegmentPreview(text=segment.text, pause_seconds=round(pause, 3))
                for segment, pause in zip(segments, pauses[1:], strict=True)
            ],
        )


def _split(request: SpeechRequest, length: SegmentLength, *, stream: bool) -> list[Segment]:
    """The segments of a request: a stream begins with a short one."""
    segments = segments_of(request, length)
    return begin_soon(segments, request, length) if stream else segments
