"""The web apps' surface: `POST /tts` answers audio, `POST /tts-json` the same within JSON."""

from __future__ import annotations

import asyncio
from base64 import b64encode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from balancer.answers import JSONResponse
from balancer.intake import Intake
from balancer.routes.common import origin, read, while_connected
from balancer.schemas import TtsBody
from balancer.speech import Audio, SpeechService


def routes(speech: SpeechService, intake: Intake, max_body_bytes: int) -> list[Route]:
    """The routes."""

    async def tts(request: Request) -> Response:
        asked = origin(request)
        wanted = intake.accept(await read(request, TtsBody, max_body_bytes))
        async with while_connected(request):
            return audio_response(await speech.speak(wanted, asked))

    async def tts_json(request: Request) -> Response:
        asked = origin(request)
        body = await read(request, TtsBody, max_body_bytes)
        wanted = intake.accept(body)
        _, character = body.chosen_voice
        async with while_connected(request):
            audio = await speech.speak(wanted, asked)
            # Minutes of audio are megabytes of base64: too long for the event loop.
            return await asyncio.to_thread(_json_response, audio, character, request.state.request_id)

    return [Route("/tts", tts, methods=["POST"]), Route("/tts-json", tts_json, methods=["POST"])]


def audio_response(audio: Audio) -> Response:
    """The audio as the body, its length in a header."""
    return Response(audio.data, media_type=audio.format.media_type, headers={"X-Audio-Seconds": f"{audio.seconds:.3f}"})


def _json_response(audio: Audio, character: str, request_id: str) -> Response:
    return JSONResponse(
        {
            "audio": b64encode(audio.data).decode("ascii"),
            "format": audio.format.value,
            "mimeType": audio.format.media_type,
            "sampleRate": audio.sample_rate,
            "duration": round(audio.seconds, 3),
            "character": character,
            "cached": audio.cached,
            "requestId": request_id,
        }
    )
