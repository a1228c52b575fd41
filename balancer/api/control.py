"""The operator's entrance: an HTTP app of its own on a socket in the run directory, which only this user can open.

What it does cannot be asked for over the network, with whatever key.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from balancer.api.responses import JSONResponse
from balancer.dispatch.dispatcher import Dispatcher
from balancer.operations.recycling import WorkerRecycler


def create_control_api(
    dispatcher: Dispatcher, recycler: WorkerRecycler, replace_balancer: Callable[[], None]
) -> Starlette:
    """The app. `replace_balancer` starts this process afresh, once it has answered all it has."""
    started_at = time.time()

    def report() -> dict[str, object]:
        return {
            "pid": os.getpid(),
            "startedAt": started_at,
            "draining": dispatcher.draining,
            "idle": dispatcher.idle,
            "reason": dispatcher.why_not_serving(),
            "workers": [view.index for view in dispatcher.workers()],
        }

    async def state(_: Request) -> Response:
        return JSONResponse(report())

    async def drain(_: Request) -> Response:
        dispatcher.draining = True
        return JSONResponse(report())

    async def resume(_: Request) -> Response:
        dispatcher.draining = False
        return JSONResponse(report())

    async def replace(request: Request) -> Response:
        index = request.path_params["index"]
        if index not in [view.index for view in dispatcher.workers()]:
            return JSONResponse({"error": {"message": f"there is no worker {index}"}}, 404)

        async def progress() -> AsyncIterator[str]:
            yield json.dumps({"replacing": index}) + "\n"
            await recycler.replace(index)
            yield json.dumps({"ready": index}) + "\n"

        return StreamingResponse(progress(), media_type="application/jsonl")

    async def restart(_: Request) -> Response:
        replace_balancer()
        return JSONResponse(report(), 202)

    return Starlette(
        routes=[
            Route("/state", state),
            Route("/drain", drain, methods=["POST"]),
            Route("/resume", resume, methods=["POST"]),
            Route("/workers/{index:int}/replace", replace, methods=["POST"]),
            Route("/restart", restart, methods=["POST"]),
        ]
    )


class _Beside(uvicorn.Server):
    """A server that leaves signals to the main one."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(app: Starlette, path: Path) -> None:
    """Serve until cancelled, on a socket at `path`, whose folder keeps others out."""
    await _Beside(uvicorn.Config(app, uds=str(path), log_config=None, access_log=False, lifespan="off")).serve()
