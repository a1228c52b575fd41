"""The worker's HTTP API: a Starlette app on a Unix socket with the three endpoints of the contract."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from worker.cards import CARDS
from worker.contract import MAX_VOICES_REPORTED, Utterance, UtteranceError, WorkerState
from worker.runner import AcceptedUtterance, RefusedError, Runner

STATUS = {"full": 429, "not_ready": 503, "invalid": 400}


def create_app(runner: Runner, *, index: int, engine: str, threads: int) -> Starlette:
    """The app of a runner, which starts with the app. `index` is the worker's number on this host."""
    reporter = StateReporter(runner, index=index, engine=engine, threads=threads)

    async def state(_: Request) -> Response:
        return Response(reporter.state().model_dump_json(), media_type="application/json")

    async def synthesize(request: Request) -> Response:
        try:
            utterance = Utterance.model_validate_json(await request.body())
            accepted = await runner.submit_when_found(utterance)
        except ValidationError as error:
            return refusal(UtteranceError(code="invalid", message=str(error)))
        except RefusedError as error:
            return refusal(error.error)
        return UtteranceResponse(accepted)

    async def drain(_: Request) -> Response:
        runner.drain()
        return Response(status_code=202)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        runner.start()
        yield

    return Starlette(
        routes=[
            Route("/state", state),
            Route("/synthesize", synthesize, methods=["POST"]),
            Route("/drain", drain, methods=["POST"]),
        ],
        lifespan=lifespan,
    )


class StateReporter:
    """Reports what `/state` says of this process and its runner."""

    def __init__(self, runner: Runner, *, index: int, engine: str, threads: int) -> None:
        self._runner = runner
        self._index = index
        self._engine = engine
        self._threads = threads
        self._process = psutil.Process()
        self._started_at = time.time()
        self._cores = tuple(sorted(os.sched_getaffinity(0)))

    def state(self) -> WorkerState:
        """The state now."""
        runner = self._runner
        times = self._process.cpu_times()
        memory = self._process.memory_info()
        return WorkerState(
            index=self._index,
            pid=self._process.pid,
            phase=runner.phase,
            reason=runner.reason,
            engine=self._engine,
            model=runner.engine.model if runner.engine is not None else self._engine,
            sample_rate=CARDS[self._engine].sample_rate,
            cores=self._cores,
            threads=self._threads,
            slots=runner.slots,
            in_flight=runner.in_flight,
            done=runner.done,
            progress=runner.progress,
            speed=runner.speed,
            stage_seconds=runner.stage_seconds,
            retakes=dict(runner.retakes),
            flawed=dict(runner.flawed),
            voices_prepared=runner.voices_prepared[:MAX_VOICES_REPORTED],
            resident_bytes=memory.rss,
            shared_bytes=memory.shared,
            cpu_seconds=times.user + times.system,
            started_at=self._started_at,
        )


class UtteranceResponse(StreamingResponse):
    """Streams the frames of an utterance, and cancels it when the connection ends for whatever reason."""

    def __init__(self, accepted: AcceptedUtterance) -> None:
        super().__init__(accepted.frames(), media_type="application/octet-stream")
        self._accepted = accepted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the closing frame or until the balancer hangs up."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._accepted.cancellation.request()


def refusal(error: UtteranceError) -> Response:
    """The answer to an utterance that was not accepted."""
    return Response(error.model_dump_json(), STATUS[error.code], media_type="application/json")
