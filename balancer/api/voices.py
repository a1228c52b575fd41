"""`GET /v1/audio/voices`: the voices that can be asked for here, and those of every engine."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from balancer.api.responses import JSONResponse
from balancer.requests.validation import RequestValidator
from voices.registry import Voice
from worker.cards import CARDS, EngineCard


def routes(validator: RequestValidator) -> list[Route]:
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
                "cloned": voice.reference is not None,
            }
            for voice in validator.supported_voices
        ]
        every = tuple(validator.voices)
        engines = {name: [voice.name for voice in every if _speaks(card, voice)] for name, card in CARDS.items()}
        return JSONResponse({"object": "list", "engine": validator.card.name, "data": voices, "engines": engines})

    return [Route("/v1/audio/voices", list_voices)]


def _speaks(card: EngineCard, voice: Voice) -> bool:
    return voice.fits(card.name, clones_voices=card.clones_voices)
