"""Durable jobs: `POST /queue` and `/queue/batch`, `GET /status/{id}`, `GET /audio/{id}`, `DELETE /queue/{id}`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route

from balancer.access.admission import Admission
from balancer.access.caller import caller_of
from balancer.api.reading import read, read_lines, validated, while_connected
from balancer.api.responses import JSONResponse
from balancer.audio.formats import AudioFormat
from balancer.errors import ChorusError
from balancer.jobs.job import Job
from balancer.jobs.service import Client, JobService, JobStatusView
from balancer.requests.bodies import QueueBody
from balancer.requests.validation import RequestValidator

STREAM_LOOK_SECONDS = 0.25
STREAM_SECONDS = 60.0
"""A stream of events ends after so long, and the client's EventSource asks again: a restart need not wait for it."""

IDEMPOTENCY_HEADER = "idempotency-key"


class QueueRoutes:
    """The routes. `public_url` is where clients reach this server, if not where their requests say they do."""

    def __init__(
        self,
        job_service: JobService,
        validator: RequestValidator,
        admission: Admission,
        *,
        max_body_bytes: int,
        max_batch_bytes: int,
        public_url: str | None = None,
    ) -> None:
        self._job_service = job_service
        self._validator = validator
        self._admission = admission
        self._max_body_bytes = max_body_bytes
        self._max_batch_bytes = max_batch_bytes
        self._public_url = public_url

    def routes(self) -> list[Route]:
        """As Starlette wants them."""
        return [
            Route("/queue", self.queue, methods=["POST"]),
            Route("/queue/batch", self.batch, methods=["POST"]),
            Route("/queue/{id}", self.cancel, methods=["DELETE"]),
            Route("/status/{id}", self.status),
            Route("/audio/{id}", self.audio),
        ]

    async def queue(self, request: Request) -> Response:
        """Take one job in."""
        body = await read(request, QueueBody, self._max_body_bytes)
        key = request.headers.get(IDEMPOTENCY_HEADER)
        if body.idempotency_key is None and key is not None:
            body = validated(body.as_sent | {"idempotencyKey": key}, QueueBody)
        self._check(body)
        (view,), headers = await self._accept([body], request)
        return JSONResponse(receipt(view), 202, headers | {"Location": view.report()["statusUrl"]})

    async def batch(self, request: Request) -> Response:
        """Take many jobs in, all or none."""
        bodies = await read_lines(request, QueueBody, self._max_batch_bytes, self._check)
        views, headers = await self._accept(bodies, request)
        return JSONResponse({"jobs": [receipt(view) for view in views]}, 202, headers)

    async def status(self, request: Request) -> Response:
        """Tell how a job stands: once, or at each change."""
        job_id, asking = request.path_params["id"], self._client(request)
        view = await self._job_service.status(job_id, asking)
        unkept = {"Cache-Control": "no-store"}
        if "text/event-stream" in request.headers.get("accept", ""):
            events = _events(self._job_service, job_id, asking)
            return StreamingResponse(events, media_type="text/event-stream", headers=unkept)
        return JSONResponse(view.report(), headers=unkept)

    async def audio(self, request: Request) -> Response:
        """The audio of a job that is done."""
        return _file(request, *await self._job_service.audio(request.path_params["id"], self._client(request)))

    async def cancel(self, request: Request) -> Response:
        """Cancel a job."""
        return JSONResponse((await self._job_service.cancel(request.path_params["id"], self._client(request))).report())

    def _check(self, body: QueueBody) -> None:
        """Refuse now what could not be spoken later."""
        self._validator.validate(body)
        self._job_service.check(body)

    async def _accept(
        self, bodies: Sequence[QueueBody], request: Request
    ) -> tuple[list[JobStatusView], dict[str, str]]:
        characters = sum(len(body.spoken_text) for body in bodies)
        voices = {self._validator.voice_of(body).name for body in bodies}
        async with while_connected(request), self._admission.admit(caller_of(request), characters, voices) as headers:
            return await self._job_service.accept(bodies, self._client(request)), headers

    def _client(self, request: Request) -> Client:
        caller = caller_of(request)
        base = self._public_url or f"{request.url.scheme}://{request.url.netloc}"
        return Client(caller.name, None if caller.key is None else caller.key.name, base.rstrip("/"))


def receipt(view: JobStatusView) -> dict[str, object]:
    """What a client is told on handing a job in."""
    whole = view.report()
    return {name: whole[name] for name in ("requestId", "statusUrl", "position", "etaSeconds", "state")}


async def _events(job_service: JobService, job_id: str, client: Client) -> AsyncIterator[str]:
    """One event at each change, until nothing more can change."""
    loop = asyncio.get_running_loop()
    until = loop.time() + STREAM_SECONDS
    last = None
    yield "retry: 1000\n\n"
    while loop.time() < until:
        try:
            view = await job_service.status(job_id, client)
        except ChorusError as error:
            yield f"event: error\ndata: {json.dumps(error.body()['error'])}\n\n"
            return
        report = view.report()
        if report != last:
            last = report
            yield f"event: status\ndata: {json.dumps(report)}\n\n"
        if view.job.state.final:
            return
        await asyncio.sleep(STREAM_LOOK_SECONDS)


def _file(request: Request, job: Job, file: Path) -> Response:
    """The audio, in whole or the ranges that were asked for; nothing where the client has it already."""
    # Nothing ever changes what lies at this address.
    headers = {"ETag": f'"{job.digest}"', "Cache-Control": "private, max-age=31536000, immutable"}
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if headers["ETag"] in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return FileResponse(
        file,
        media_type=AudioFormat(job.format).media_type,
        filename=f"{job.id}{job.suffix}",
        content_disposition_type="inline",
        headers=headers,
    )
