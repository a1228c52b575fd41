"""`GET /v1/audio/voices`: the voices that can be asked for here."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from balancer.answers import JSONResponse
from balancer.intake import Intake


def routes(intake: Intake) -> list[Route]:
    """The route."""

    async def list_voices(_: Request) -> Response:
        voices = [
            {
                "id": voice.name,
                "name": voice.name,
                "object": "voice",
                "description": voice.description,
                "language": voice.language,
                "aliases": voice.aliases,
                "synthetic": voice.synthetic,
            }
            for voice in intake.speakable
        ]
        return JSONResponse({"object": "list", "engine": intake.card.name, "data": voices})

    return [Route("/v1/audio/voices", list_voices)]
