"""The operations of operators over the network: who is one, and `POST /drain` and `POST /resume`.

The control socket of this host (`control`) does the same for the command line, and more.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from balancer.access.caller import caller_of, operator_of
from balancer.api.models.health import DrainState
from balancer.api.responses import JSONResponse
from balancer.dispatch.host_state import HostState


def admit_operator(request: Request, voice: str | None = None) -> None:
    """Let a request pass if its API key is an operator's. Raises OperatorKeyRequiredError.

    The request's log line says who sent it, and which voice it is about.
    """
    fields = request.scope["state"]["log_fields"]
    fields.caller = caller_of(request).name
    fields.voice = voice
    operator_of(request)


def routes(host_state: HostState) -> list[Route]:
    """The routes."""

    async def drain(request: Request) -> Response:
        return set_draining(request, draining=True)

    async def resume(request: Request) -> Response:
        return set_draining(request, draining=False)

    def set_draining(request: Request, *, draining: bool) -> Response:
        admit_operator(request)
        host_state.draining = draining
        return JSONResponse(DrainState(draining=draining, idle=host_state.idle))

    return [Route("/drain", drain, methods=["POST"]), Route("/resume", resume, methods=["POST"])]
