"""Chorus' own endpoints: `POST /tts` responds with audio, `POST /tts-json` with JSON that contains it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from balancer.access.admission import Admission
from balancer.access.caller import caller_of
from balancer.api.audio_responses import BufferResponse, JsonAudioResponse
from balancer.api.models import TtsJson
from balancer.api.reading import WhileConnected, can_stream, read_json, request_context
from balancer.api.streams import EventsResponse, StreamResponse
from balancer.audio.buffers import PIECE_BYTES
from balancer.audio.held_audio import HeldAudio
from balancer.errors import AudioTooLargeError, InvalidRequestError
from balancer.requests.bodies import OpenAISpeechBody, StreamFormat, TtsBody
from balancer.requests.cache_control import CacheOutcome
from balancer.requests.speech_request import RequestContext, SpeechRequest
from balancer.requests.validation import RequestValidator
from balancer.speech.audio_stream import AudioStream
from balancer.speech.results import Audio
from balancer.speech.service import SpeechService


def routes(
    speech: SpeechService,
    validator: RequestValidator,
    admission: Admission,
    held: HeldAudio,
    *,
    max_body_bytes: int,
    max_json_audio: int,
) -> list[Route]:
    """The routes. `max_json_audio`: most bytes of audio within JSON."""

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

    tts = audio_endpoint(TtsBody, speech, validator, admission, held, max_body_bytes)
    return [Route("/tts", tts, methods=["POST"]), Route("/tts-json", tts_json, methods=["POST"])]


def audio_endpoint(
    body_type: type[OpenAISpeechBody | TtsBody],
    speech: SpeechService,
    validator: RequestValidator,
    admission: Admission,
    held: HeldAudio,
    max_body_bytes: int,
) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint that answers a body of `body_type` with its audio."""

    async def endpoint(request: Request) -> Response:
        context = request_context(request)
        body = await read_json(request, body_type, max_body_bytes, held.memory)
        speech_request = await validator.validate_for_client(body)
        if (body.stream and can_stream(request)) or body.stream_format is StreamFormat.SSE:
            return await streamed(request, body, speech_request, context)
        async with (
            WhileConnected(request),
            admission.admit_speech(caller_of(request), speech_request, context) as (admitted, limit_headers),
        ):
            return audio_response(held, await speech.synthesize(admitted, context), limit_headers)

    async def streamed(
        request: Request, body: OpenAISpeechBody | TtsBody, speech_request: SpeechRequest, context: RequestContext
    ) -> Response:
        async with AsyncExitStack() as resources:
            await resources.enter_async_context(WhileConnected(request))
            admitted, limit_headers = await resources.enter_async_context(
                admission.admit_speech(caller_of(request), speech_request, context)
            )
            make = speech.stream if body.stream and can_stream(request) else speech.synthesize
            audio = await make(admitted, context)
            characters = len(body.spoken_text)
            if isinstance(audio, AudioStream):
                resources.push_async_callback(audio.aclose)
                return StreamResponse(
                    audio, resources.pop_all(), body.stream_format, characters=characters, headers=limit_headers
                )
            if body.stream_format is StreamFormat.SSE:
                return EventsResponse(held, audio, characters=characters, headers=limit_headers)
            return audio_response(held, audio, limit_headers)

    return endpoint


def cache_headers(audio: Audio) -> dict[str, str]:
    """The source of the audio; of a text of several segments, also how many of them were not synthesized for it."""
    headers = {"X-Cache": audio.outcome.value}
    if audio.segments:
        found = len(audio.segments) - audio.segments.count(CacheOutcome.MISS)
        headers["X-Cache-Segments"] = f"{found}/{len(audio.segments)}"
    return headers


def take_headers(audio: Audio) -> dict[str, str]:
    """How many takes the model discarded, and what is wrong with the audio; empty if it spoke well at once."""
    headers = {}
    if audio.retakes:
        headers["X-Retakes"] = str(audio.retakes)
    if audio.flaws:
        headers["X-Flaws"] = ", ".join(sorted(audio.flaws))
    return headers


def audio_response(held: HeldAudio, audio: Audio, limit_headers: Mapping[str, str]) -> Response:
    """The audio as the body; its duration, its source and the caller's rate limits in headers."""
    headers = {
        "X-Audio-Seconds": f"{audio.seconds:.3f}",
        **cache_headers(audio),
        **take_headers(audio),
        **limit_headers,
    }
    if audio.data.in_memory and len(audio.data) <= PIECE_BYTES:
        return Response(bytes(audio.data), media_type=audio.format.media_type, headers=headers)
    return BufferResponse(held, audio.data, media_type=audio.format.media_type, headers=headers)
