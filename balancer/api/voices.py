"""`GET /v1/audio/voices`: the voices of the running engine, and the names of those of every engine."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from balancer.api.models import VoiceDescription, VoiceList
from balancer.api.responses import JSONResponse
from balancer.requests.validation import RequestValidator
from voices.registry import Voice
from worker.cards import CARDS, EngineCard


def routes(validator: RequestValidator) -> list[Route]:
    """The route."""

    async def list_voices(_: Request) -> Response:
        all_voices = tuple(validator.voices)
        listing = VoiceList(
            object="list",
            engine=validator.card.name,
            data=[_describe(voice) for voice in validator.supported_voices],
            engines={name: [voice.name for voice in all_voices if _fits(card, voice)] for name, card in CARDS.items()},
        )
        return JSONResponse(listing)

    return [Route("/v1/audio/voices", list_voices)]


def _describe(voice: Voice) -> VoiceDescription:
    return VoiceDescription(
        id=voice.name,
        name=voice.name,
        object="voice",
        description=voice.description,
        language=voice.language,
        aliases=list(voice.aliases),
        synthetic=voice.synthetic,
        cloned=voice.reference is not None,
    )


def _fits(card: EngineCard, voice: Voice) -> bool:
    return voice.fits(card.name, clones_voices=card.clones_voices)
