"""`POST /tts/link`: makes a signed link by which a web page plays one text without an API key."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from balancer.access.admission import Admission
from balancer.access.caller import caller_of
from balancer.access.links import Links
from balancer.api.models.speech import Link
from balancer.api.query import to_query
from balancer.api.reading import base_url, read_json
from balancer.api.responses import JSONResponse
from balancer.audio.held_audio import Budget
from balancer.errors import InvalidRequestError
from balancer.requests.bodies import LinkBody
from balancer.requests.validation import RequestValidator

NO_STORE = {"Cache-Control": "no-store"}


def routes(
    links: Links,
    validator: RequestValidator,
    admission: Admission,
    memory: Budget,
    *,
    max_body_bytes: int,
    max_line_bytes: int,
    public_url: str | None,
) -> list[Route]:
    """The route. `max_line_bytes`: longest request line that the server reads."""

    async def link(request: Request) -> Response:
        body = await read_json(request, LinkBody, max_body_bytes, memory)
        speech_request = await validator.validate_for_client(body)
        caller = caller_of(request)
        admission.check_voices(caller, [speech_request.voice.name])
        query, expires = links.sign(to_query(body.request), caller, body.expires_seconds)
        url = f"{base_url(request, public_url)}/tts?{query}"
        length = len(f"HEAD {url.removeprefix(_origin(url))} HTTP/1.1\r")
        if length > max_line_bytes:
            raise InvalidRequestError(
                f"a request of the link would have a line of {length} bytes; the limit is {max_line_bytes}: send a "
                "shorter text, or POST /tts itself",
                param=body.text_field,
                code="text_too_long",
            )
        expires_at = datetime.fromtimestamp(expires, UTC).isoformat()
        return JSONResponse(Link(url=url, expires_at=expires_at), headers=NO_STORE)

    return [Route("/tts/link", link, methods=["POST"])]


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
