"""Chorus' own endpoints: `POST /tts` and `GET /tts` respond with audio, `POST /tts-json` with JSON that contains it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from balancer.access.admission import Admission
from balancer.access.caller import caller_of, is_link
from balancer.access.links import LINK_FIELDS
from balancer.api.audio_responses import BufferResponse, JsonAudioResponse
from balancer.api.headers import header
from balancer.api.models.speech import TtsJson
from balancer.api.query import body_of_query, parse_query
from balancer.api.ranges import one_range
from balancer.api.reading import WhileConnected, can_stream, read_json, request_context
from balancer.api.streams import EventsResponse, StreamResponse
from balancer.audio.buffers import PIECE_BYTES, MemoryBuffer
from balancer.audio.encoder import encode
from balancer.audio.held_audio import HeldAudio
from balancer.errors import AudioTooLargeError, InvalidRequestError
from balancer.requests.bodies import OpenAISpeechBody, StreamFormat, TtsBody
from balancer.requests.cache_control import CacheOutcome
from balancer.requests.speech_request import RequestContext, SpeechRequest
from balancer.requests.validation import RequestValidator
from balancer.speech.audio_stream import AudioStream
from balancer.speech.results import Audio
from balancer.speech.service import SpeechService
from worker.contract import SAMPLE_BYTES

SILENCE_SECONDS = 0.2
"""The audio of a text without letters and digits, for clients that try an API key with one."""


def routes(
    speech: SpeechService,
    validator: RequestValidator,
    admission: Admission,
    held: HeldAudio,
    *,
    max_body_bytes: int,
    max_json_audio: int,
    get_tts: bool = False,
) -> list[Route]:
    """The routes. `max_json_audio`: most bytes of audio within JSON; `get_tts`: whether `GET /tts` speaks unsigned."""
    responder = SpeechResponder(speech, validator, admission, held)

    async def tts(request: Request) -> Response:
        return await (spoken_body if request.method == "POST" else spoken_query)(request)

    async def spoken_query(request: Request) -> Response:
        query = parse_query(request.scope["query_string"])
        if is_link(request):
            query = [(name, value) for name, value in query if name not in LINK_FIELDS]
        elif not get_tts:
            raise HTTPException(405, headers={"Allow": "POST"})
        context = request_context(request)
        body = body_of_query(query, TtsBody)
        if request.method == "HEAD":
            response = await responder.head(request, body)
        else:
            response = await responder.respond(request, body, context)
        # Unlike those to a POST, caches may keep it; but not for other callers.
        response.headers.setdefault("Cache-Control", "private")
        return response

    async def tts_json(request: Request) -> Response:
        context = request_context(request)
        body = await read_json(request, TtsBody, max_body_bytes, held.memory)
        if body.stream:
            raise InvalidRequestError("JSON contains whole audio only; send the same to POST /tts", param="stream")
        speech_request = await validator.validate_for_client(body)
        _, character = body.chosen_voice
        async with (
            WhileConnected(request),
            admission.admit_speech(caller_of(request), speech_request, context) as (admitted, limit_headers),
        ):
            audio = await speech.synthesize(admitted, context)
        if len(audio.data) > max_json_audio:
            raise AudioTooLargeError(
                f"the audio has {len(audio.data)} bytes, and JSON contains at most {max_json_audio} of them here; "
                "send the same request to POST /tts, which returns the audio itself"
            )
        headers = {**cache_headers(audio), **take_headers(audio), **limit_headers}
        content = TtsJson.of(audio, character=character, request_id=request.state.request_id)
        return JsonAudioResponse(held, audio.data, content, headers=headers)

    spoken_body = audio_endpoint(TtsBody, speech, validator, admission, held, max_body_bytes)
    return [Route("/tts", tts, methods=["GET", "POST"]), Route("/tts-json", tts_json, methods=["POST"])]


class SpeechResponder:
    """Answers a body with its audio, from whatever part of a request the body was read."""

    def __init__(
        self, speech: SpeechService, validator: RequestValidator, admission: Admission, held: HeldAudio
    ) -> None:
        self._speech = speech
        self._validator = validator
        self._admission = admission
        self._held = held

    async def respond(self, request: Request, body: OpenAISpeechBody | TtsBody, context: RequestContext) -> Response:
        """The audio: whole, or while it is made."""
        response = await self._response(request, body, context)
        if ignored := self._validator.ignored_fields(body):
            response.headers["X-Ignored-Fields"] = ", ".join(ignored)
        return response

    async def _response(self, request: Request, body: OpenAISpeechBody | TtsBody, context: RequestContext) -> Response:
        if body.silent:
            return await self._silence(request, body)
        speech_request = await self._validator.validate_for_client(body)
        if (body.stream and can_stream(request)) or body.stream_format is StreamFormat.SSE:
            return await self._stream(request, body, speech_request, context)
        async with (
            WhileConnected(request),
            self._admission.admit_speech(caller_of(request), speech_request, context) as (admitted, limit_headers),
        ):
            audio = await self._speech.synthesize(admitted, context)
            return self._whole(request, speech_request, audio, limit_headers)

    async def _silence(self, request: Request, body: OpenAISpeechBody | TtsBody) -> Response:
        """The audio of a text that says nothing. No worker has a part in it."""
        self._validator.check_model(body)
        caller, voice = caller_of(request), self._validator.voice_of(body)
        rate = self._validator.card.sample_rate
        pcm = MemoryBuffer(bytes(SAMPLE_BYTES * round(SILENCE_SECONDS * rate)))
        encode_silence = partial(encode, pcm, rate, body.audio_format, body.speed)
        async with self._admission.admit(caller, len(body.spoken_text), [voice.name]) as limit_headers:
            data = await self._held.assemble(caller.identity, encode_silence)
        audio = Audio(data, body.audio_format, rate, SILENCE_SECONDS / body.speed)
        if body.stream_format is StreamFormat.SSE:
            return EventsResponse(self._held, audio, characters=len(body.spoken_text), headers=limit_headers)
        return audio_response(self._held, audio, limit_headers)

    async def head(self, request: Request, body: TtsBody) -> Response:
        """The response's headers without its audio. No rate limit counts it."""
        speech_request = await self._validator.validate_for_client(body)
        self._admission.check_voices(caller_of(request), [speech_request.voice.name])
        response = Response(media_type=speech_request.format.media_type)
        del response.headers["content-length"]
        return response

    async def _stream(
        self,
        request: Request,
        body: OpenAISpeechBody | TtsBody,
        speech_request: SpeechRequest,
        context: RequestContext,
    ) -> Response:
        async with AsyncExitStack() as resources:
            await resources.enter_async_context(WhileConnected(request))
            admitted, limit_headers = await resources.enter_async_context(
                self._admission.admit_speech(caller_of(request), speech_request, context)
            )
            make = self._speech.stream if body.stream and can_stream(request) else self._speech.synthesize
            audio = await make(admitted, context)
            characters = len(body.spoken_text)
            if isinstance(audio, AudioStream):
                resources.push_async_callback(audio.aclose)
                return StreamResponse(
                    audio, resources.pop_all(), body.stream_format, characters=characters, headers=limit_headers
                )
            if body.stream_format is StreamFormat.SSE:
                return EventsResponse(self._held, audio, characters=characters, headers=limit_headers)
            return self._whole(request, speech_request, audio, limit_headers)

    def _whole(
        self, request: Request, speech_request: SpeechRequest, audio: Audio, limit_headers: dict[str, str]
    ) -> Response:
        """The audio, or the part of it that a GET asks for: some browsers play only what they get in ranges."""
        if request.method != "GET":
            return audio_response(self._held, audio, limit_headers)
        headers = {"Accept-Ranges": "bytes", **limit_headers}
        asked = header(request.scope, b"range")
        # No answer has an entity tag that If-Range could name.
        part = None if asked is None or "if-range" in request.headers else one_range(asked, len(audio.data))
        if part and not (part.start == 0 or speech_request.seeded or audio.outcome is CacheOutcome.HIT):
            part = None  # what the client has of it is of another take
        return audio_response(self._held, audio, headers, part)


def audio_endpoint(
    body_type: type[OpenAISpeechBody | TtsBody],
    speech: SpeechService,
    validator: RequestValidator,
    admission: Admission,
    held: HeldAudio,
    max_body_bytes: int,
) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint that answers a body of `body_type` with its audio."""
    responder = SpeechResponder(speech, validator, admission, held)

    async def endpoint(request: Request) -> Response:
        context = request_context(request)
        body = await read_json(request, body_type, max_body_bytes, held.memory)
        return await responder.respond(request, body, context)

    return endpoint


def cache_headers(audio: Audio) -> dict[str, str]:
    """The source of the audio; of a text of several segments, also how many of them were not synthesized for it."""
    headers = {"X-Cache": audio.outcome.value}
    if audio.segments:
        found = len(audio.segments) - audio.segments.count(CacheOutcome.MISS)
        headers["X-Cache-Segments"] = f"{found}/{len(audio.segments)}"
    return headers


def take_headers(audio: Audio) -> dict[str, str]:
    """Headers for the takes that the model discarded and the flaws of the audio; empty if there are none."""
    headers = {}
    if audio.retakes:
        headers["X-Retakes"] = str(audio.retakes)
    if audio.flaws:
        headers["X-Flaws"] = ", ".join(sorted(audio.flaws))
    return headers


def audio_response(
    held: HeldAudio, audio: Audio, limit_headers: Mapping[str, str], part: range | None = None
) -> Response:
    """The audio, or a part of it, as the body; its duration, its source and the caller's rate limits in headers."""
    headers = {
        "X-Audio-Seconds": f"{audio.seconds:.3f}",
        **cache_headers(audio),
        **take_headers(audio),
        **limit_headers,
    }
    if part is None and audio.data.in_memory and len(audio.data) <= PIECE_BYTES:
        return Response(bytes(audio.data), media_type=audio.format.media_type, headers=headers)
    return BufferResponse(held, audio.data, media_type=audio.format.media_type, headers=headers, part=part)
