"""Chorus' own endpoints: `POST /tts` responds with audio, `POST /tts-json` with JSON that contains it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from balancer.access.admission import Admission
from balancer.access.caller import caller_of
from balancer.api.models import TtsJson
from balancer.api.reading import read_json, request_context, while_connected
from balancer.api.responses import JSONResponse
from balancer.requests.bodies import OpenAISpeechBody, TtsBody
from balancer.requests.validation import RequestValidator
from balancer.speech.service import Audio, SpeechService


def routes(
    speech: SpeechService, validator: RequestValidator, admission: Admission, max_body_bytes: int
) -> list[Route]:
    """The routes."""

    async def tts_json(request: Request) -> Response:
        context = request_context(request)
        body = await read_json(request, TtsBody, max_body_bytes)
        speech_request = await validator.validate_for_client(body)
        _, character = body.chosen_voice
        async with (
            while_connected(request),
            admission.admit_speech(caller_of(request), speech_request, context) as (admitted, limit_headers),
        ):
            audio = await speech.synthesize(admitted, context)
            # In a thread: minutes of audio are megabytes of base64, which take too long for the event loop.
            return await asyncio.to_thread(_json_response, audio, character, request.state.request_id, limit_headers)

    tts = audio_endpoint(TtsBody, speech, validator, admission, max_body_bytes)
    return [Route("/tts", tts, methods=["POST"]), Route("/tts-json", tts_json, methods=["POST"])]


def audio_endpoint(
    body_type: type[OpenAISpeechBody | TtsBody],
    speech: SpeechService,
    validator: RequestValidator,
    admission: Admission,
    max_body_bytes: int,
) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint that answers a body of `body_type` with its audio."""

    async def endpoint(request: Request) -> Response:
        context = request_context(request)
        speech_request = await validator.validate_for_client(await read_json(request, body_type, max_body_bytes))
        async with (
            while_connected(request),
            admission.admit_speech(caller_of(request), speech_request, context) as (admitted, limit_headers),
        ):
            return audio_response(await speech.synthesize(admitted, context), limit_headers)

    return endpoint


def audio_response(audio: Audio, limit_headers: Mapping[str, str]) -> Response:
    """The audio as the body; its duration, its source and the caller's rate limits in headers."""
    headers = {"X-Audio-Seconds": f"{audio.seconds:.3f}", "X-Cache": audio.outcome.value}
    return Response(audio.data, media_type=audio.format.media_type, headers={**headers, **limit_headers})


def _json_response(audio: Audio, character: str, request_id: str, limit_headers: Mapping[str, str]) -> Response:
    body = TtsJson.of(audio, character=character, request_id=request_id)
    return JSONResponse(body, headers={"X-Cache": audio.outcome.value, **limit_headers})
