"""The control API: an HTTP app of its own, on a Unix socket in the run directory that only this user can open.

Its operations are not available over the network, with any API key.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from balancer.api.health import health_of
from balancer.api.models.health import ControlState
from balancer.api.responses import JSONResponse
from balancer.dispatch.host_state import HostState
from balancer.operations.handover import NotSupervisedError, Succession
from balancer.operations.history import History
from balancer.operations.process_cpu import ProcessCpu
from balancer.operations.recycling import WorkerRecycler

log = logging.getLogger(__name__)


def create_control_api(
    host_state: HostState,
    recycler: WorkerRecycler,
    cpu: ProcessCpu,
    past: History,
    succession: Succession,
    *,
    hand_over: Callable[[], Awaitable[None]],
) -> Starlette:
    """The app. A successor asks this process to `hand_over` once it accepts connections."""
    started_at = time.time()

    state = partial(_state_of, host_state, succession, started_at)

    async def get_state(_: Request) -> Response:
        return JSONResponse(state())

    async def get_health(_: Request) -> Response:
        return JSONResponse(health_of(host_state, cpu, past))

    async def drain(request: Request) -> Response:
        host_state.draining = request.url.path == "/drain"
        _log_action(request)
        return JSONResponse(state())

    async def replace(request: Request) -> Response:
        index = request.path_params["index"]
        if index not in [view.index for view in host_state.workers()]:
            return JSONResponse({"error": {"message": f"there is no worker {index}"}}, 404)
        _log_action(request)

        async def progress() -> AsyncIterator[str]:
            yield json.dumps({"replacing": index}) + "\n"
            await recycler.replace(index)
            yield json.dumps({"ready": index}) + "\n"

        return StreamingResponse(progress(), media_type="application/jsonl")

    async def begin_restart(request: Request) -> Response:
        _log_action(request)
        try:
            await succession.start()
        except NotSupervisedError as error:
            return JSONResponse({"error": {"message": str(error)}}, 409)
        return JSONResponse(state(), 202)

    async def finish(_: Request) -> Response:
        await hand_over()
        return JSONResponse(state(), 202)

    return Starlette(
        routes=[
            Route("/state", get_state),
            Route("/health", get_health),
            Route("/drain", drain, methods=["POST"]),
            Route("/resume", drain, methods=["POST"]),
            Route("/workers/{index:int}/replace", replace, methods=["POST"]),
            Route("/restart", begin_restart, methods=["POST"]),
            Route("/hand-over", finish, methods=["POST"]),
        ]
    )


def _log_action(request: Request) -> None:
    """Log what an operator on this host does, as the access log does for operators with an API key."""
    log.info("%s %s", request.method, request.url.path, extra={"fields": {"caller": "control socket"}})


def _state_of(host_state: HostState, succession: Succession, started_at: float) -> ControlState:
    return ControlState(
        pid=os.getpid(),
        started_at=started_at,
        draining=host_state.draining,
        idle=host_state.idle,
        reason=host_state.why_not_serving(),
        workers=[view.index for view in host_state.workers()],
        successor_failure=succession.failure,
    )


class _ServerWithoutSignals(uvicorn.Server):
    """A server that leaves signals to the main server of this process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(app: Starlette, path: Path) -> None:
    """Serve `app` on a Unix socket at `path`, until cancelled. The folder's permissions keep other users out."""
    await _ServerWithoutSignals(
        uvicorn.Config(app, uds=str(path), log_config=None, access_log=False, lifespan="off")
    ).serve()
