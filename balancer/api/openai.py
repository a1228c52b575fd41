"""Endpoints of OpenAI's API: `POST /v1/audio/speech`, `GET /v1/models`, `GET /v1/models/{model}`.

`GET /v1/audio/models` is what some of its clients call for the models that speak.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from balancer.access.admission import Admission
from balancer.api.models.catalogue import Model, ModelChoice, ModelChoices, ModelList
from balancer.api.responses import JSONResponse
from balancer.api.tts import audio_endpoint
from balancer.audio.held_audio import HeldAudio
from balancer.errors import ModelNotFoundError
from balancer.requests.bodies import OpenAISpeechBody
from balancer.requests.validation import RequestValidator
from balancer.speech.service import SpeechService


def routes(
    speech: SpeechService,
    validator: RequestValidator,
    admission: Admission,
    held: HeldAudio,
    *,
    max_body_bytes: int,
    started_at: int,
) -> list[Route]:
    """The routes; `started_at` (Unix seconds) is reported as the creation time of the models."""

    def model(name: str) -> Model:
        return Model(id=name, object="model", created=started_at, owned_by="chorus")

    async def list_models(_: Request) -> Response:
        return JSONResponse(ModelList(object="list", data=[model(name) for name in validator.models]))

    async def get_model(request: Request) -> Response:
        name = request.path_params["model"]
        if not validator.knows_model(name):
            raise ModelNotFoundError(f"there is no model {name!r} here; there are: {', '.join(validator.models)}")
        return JSONResponse(model(name))

    async def list_choices(_: Request) -> Response:
        return JSONResponse(ModelChoices(models=[ModelChoice(id=name) for name in validator.models]))

    create_speech = audio_endpoint(OpenAISpeechBody, speech, validator, admission, held, max_body_bytes)
    return [
        Route("/v1/audio/speech", create_speech, methods=["POST"]),
        Route("/v1/models", list_models),
        Route("/v1/audio/models", list_choices),
        Route("/v1/models/{model}", get_model),
    ]
