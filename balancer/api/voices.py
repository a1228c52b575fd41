"""`/v1/audio/voices`: the voices that clients can ask for; for operators, adding, removing and inspecting voices."""

from __future__ import annotations

from starlette.convertors import StringConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from balancer.api.forms import read_form
from balancer.api.models.voices import VoiceChoice, VoiceDescription, VoiceDetails, VoiceList, VoiceRemoval
from balancer.api.operators import admit_operator
from balancer.api.responses import JSONResponse
from balancer.audio.held_audio import Budget
from balancer.operations.voice_library import VoiceLibrary
from balancer.requests.validation import RequestValidator
from balancer.requests.voice_form import VoiceForm
from voices.registry import Voice
from voices.regular_files import MAX_CLIP_BYTES
from worker.cards import CARDS, EngineCard


class _VoiceName(StringConvertor):
    """A voice's name in a path: it may have a slash, as Starlette's own names may not."""

    regex = r"[\s\S]+"


register_url_convertor("voice", _VoiceName())

CLIP_FIELD = "clip"
"""The field of a form that has the recording."""


def routes(validator: RequestValidator, library: VoiceLibrary, files: Budget) -> list[Route]:
    """The routes. `files` counts the recordings that are being received."""

    async def list_voices(_: Request) -> Response:
        all_voices = tuple(validator.voices)
        listing = VoiceList(
            object="list",
            engine=validator.card.name,
            data=[VoiceDescription.of(voice) for voice in validator.supported_voices],
            voices=[
                VoiceChoice(id=name, name=name)
                for voice in validator.supported_voices
                for name in (voice.name, *voice.aliases)
            ],
            engines={name: [voice.name for voice in all_voices if _fits(card, voice)] for name, card in CARDS.items()},
        )
        return JSONResponse(listing)

    async def add(request: Request) -> Response:
        admit_operator(request)
        async with read_form(request, VoiceForm, CLIP_FIELD, max_file_bytes=MAX_CLIP_BYTES, budget=files) as (
            form,
            recording,
        ):
            admit_operator(request, form.name)
            added = await library.add(form, recording.file)
        return JSONResponse(VoiceDetails.inspected(added, _engines(added.voice)), 201)

    async def show(request: Request) -> Response:
        name = request.path_params["name"]
        admit_operator(request, name)
        found = await library.find(name)
        return JSONResponse(VoiceDetails.inspected(found, _engines(found.voice)))

    async def remove(request: Request) -> Response:
        name = request.path_params["name"]
        admit_operator(request, name)
        await library.remove(name)
        return JSONResponse(VoiceRemoval(id=name, object="voice", deleted=True))

    return [
        Route("/v1/audio/voices", list_voices),
        Route("/v1/audio/voices", add, methods=["POST"]),
        Route("/v1/audio/voices/{name:voice}", show),
        Route("/v1/audio/voices/{name:voice}", remove, methods=["DELETE"]),
    ]


def _engines(voice: Voice) -> list[str]:
    return [name for name, card in CARDS.items() if _fits(card, voice)]


def _fits(card: EngineCard, voice: Voice) -> bool:
    return voice.fits(card.name, clones_voices=card.clones_voices)
