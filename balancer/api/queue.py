"""Durable jobs: `POST /queue` and `/queue/batch`, `GET /status/{id}`, `GET /audio/{id}`, `DELETE /queue/{id}`.

The URLs in a response are those at which the client of that very request reaches the server: a job may be queued at one
address and its status fetched at another.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from balancer.access.admission import Admission
from balancer.access.caller import caller_of
from balancer.api.models.error import Error
from balancer.api.models.jobs import JobReceipt, JobStatus
from balancer.api.ranges import RangeFileResponse
from balancer.api.reading import JsonLinesReader, WhileConnected, base_url, can_stream, read_json, validate_body
from balancer.api.responses import ClientGoneError, JSONResponse, json_object, to_json
from balancer.api.streams import StreamResponse
from balancer.audio.formats import AudioFormat
from balancer.audio.held_audio import Budget
from balancer.errors import ChorusError, InvalidRequestError, JobNotDoneError
from balancer.jobs.feed import JobFeed, Watcher
from balancer.jobs.job import Job
from balancer.jobs.job_stream import JobStreams
from balancer.jobs.service import JobOwner, JobService, JobStatusView
from balancer.requests.bodies import QueueBody, StreamFormat
from balancer.requests.validation import RequestValidator
from balancer.runtime.thread_pool import run_at_once, with_rests
from balancer.settings.jobs import JobSettings
from balancer.settings.limits import LimitSettings

MAX_EVENT_STREAM_SECONDS = 60.0
"""A stream of events ends after this time, and the client's EventSource reconnects: so a restart of the server need not
wait for it."""

MAX_STATUS_EVENTS = 1000
"""Jobs whose latest event is kept for further streams."""

IDEMPOTENCY_HEADER = "idempotency-key"

NO_STORE = {"Cache-Control": "no-store"}
NO_STORE_NOR_TRANSFORM = {"Cache-Control": "no-store, no-transform"}


class QueueRoutes:
    """The routes. `memory` counts the bodies of requests.

    `public_url` is where clients reach this server; if None, the URLs of their requests say it.
    """

    def __init__(
        self,
        job_service: JobService,
        validator: RequestValidator,
        admission: Admission,
        memory: Budget,
        limits: LimitSettings,
        jobs: JobSettings,
        job_streams: JobStreams,
        public_url: str | None = None,
    ) -> None:
        self._job_service = job_service
        self._job_streams = job_streams
        self._validator = validator
        self._admission = admission
        self._memory = memory
        self._limits = limits
        self._public_url = public_url
        self._feed = JobFeed(job_service, jobs)
        self._status_events = StatusEvents()
        self._batches = JsonLinesReader(memory, max_bytes=limits.max_batch_bytes, max_lines=limits.max_batch_lines)

    def close(self) -> None:
        """End the threads; does not wait for them."""
        self._batches.close()
        self._job_streams.close()

    def routes(self) -> list[Route]:
        """The routes, for Starlette."""
        return [
            Route("/queue", self.queue, methods=["POST"]),
            Route("/queue/batch", self.batch, methods=["POST"]),
            Route("/queue/{id}", self.cancel, methods=["DELETE"]),
            Route("/status/{id}", self.status),
            Route("/audio/{id}", self.audio),
        ]

    async def queue(self, request: Request) -> Response:
        """Queue one job."""
        body = await read_json(request, QueueBody, self._limits.job_body_bytes, self._memory)
        key = request.headers.get(IDEMPOTENCY_HEADER)
        if body.idempotency_key is None and key is not None:
            body = validate_body(body.as_sent | {"idempotencyKey": key}, QueueBody)
        self._job_service.check(body, await self._validator.validate_for_client(body))
        (view,), limit_headers = await self._accept([body], request)
        receipt = JobReceipt.of(view, self._base_url(request))
        return JSONResponse(receipt, 202, limit_headers | {"Location": receipt.status_url})

    async def batch(self, request: Request) -> Response:
        """Queue many jobs, all or none."""
        async with self._batches.read(request, QueueBody, self._check_line) as bodies:
            views, limit_headers = await self._accept(bodies, request)
            content = await self._batches.run(partial(_receipts, views, self._base_url(request)))
        return Response(content, 202, limit_headers, JSONResponse.media_type)

    async def status(self, request: Request) -> Response:
        """The status of a job: once, or as a stream of events."""
        job_id, owner = request.path_params["id"], self._owner(request)
        if "text/event-stream" in request.headers.get("accept", ""):
            return EventStreamResponse(self._feed, self._status_events, self._job_service, job_id, owner)
        view = await self._job_service.status(job_id, owner)
        return JSONResponse(JobStatus.of_view(view, owner.base_url), headers=NO_STORE)

    async def audio(self, request: Request) -> Response:
        """The audio of a job that is done; with `stream=true`, that of any job, from its beginning on."""
        job_id, owner = request.path_params["id"], self._owner(request)
        if _wants_stream(request) and can_stream(request):
            response = await self._stream(request, job_id, owner)
            if response is not None:
                return response
        return _file(request, *await self._job_service.audio(job_id, owner))

    async def _stream(self, request: Request, job_id: str, owner: JobOwner) -> Response | None:
        """The audio of a job that has not ended, as it is made; None once the job has ended.

        Waits until its beginning is finished. Raises JobNotDoneError if that takes too long.
        """
        async with AsyncExitStack() as resources:
            await resources.enter_async_context(WhileConnected(request))
            watcher = resources.enter_context(self._feed.watch(job_id, owner.caller))
            try:
                async with asyncio.timeout(self._limits.request_timeout):
                    job = await self._playable(watcher, owner)
            except TimeoutError as error:
                raise JobNotDoneError("the beginning of the job is not finished yet; try again later") from error
            if job.state.final:
                return None
            stream = await self._job_streams.open(job, watcher, caller_of(request).identity)
            resources.push_async_callback(stream.aclose)
            headers = NO_STORE_NOR_TRANSFORM | {"Content-Disposition": f'inline; filename="{job.id}{job.suffix}"'}
            return StreamResponse(
                stream, resources.pop_all(), StreamFormat.AUDIO, characters=job.characters, headers=headers
            )

    async def _playable(self, watcher: Watcher, owner: JobOwner) -> Job:
        """The job, once its beginning is finished or it has ended."""
        while True:
            job = (await watcher.change()).job
            self._job_service.check_visible(job, owner)
            if job.state.final or job.playable_bytes:
                return job

    async def cancel(self, request: Request) -> Response:
        """Cancel a job, or delete one that has ended."""
        owner = self._owner(request)
        view = await self._job_service.cancel(request.path_params["id"], owner)
        return JSONResponse(JobStatus.of_view(view, owner.base_url))

    def _check_line(self, body: QueueBody) -> None:
        """Refuse a job now that would certainly fail later, in the thread that reads the lines.

        Raises InvalidRequestError, ModelNotFoundError, AudioTooLargeError.
        """
        self._job_service.check(body, self._validator.validate_blocking(body))

    async def _accept(
        self, bodies: Sequence[QueueBody], request: Request
    ) -> tuple[list[JobStatusView], dict[str, str]]:
        """Queue the jobs; returns their states, and the rate limit headers of the response."""

        def sum_up() -> tuple[int, set[str]]:
            voices = {self._validator.voice_of(body).name for body in bodies}
            return sum(len(body.spoken_text) for body in bodies), voices

        run = run_at_once if len(bodies) == 1 else self._batches.run  # only thousands take long
        characters, voices = await run(sum_up)
        caller = caller_of(request)
        admitted = self._admission.admit(caller, characters, voices, requests=len(bodies))
        async with WhileConnected(request), admitted as limit_headers:
            return await self._job_service.accept(bodies, self._owner(request), run), limit_headers

    def _owner(self, request: Request) -> JobOwner:
        caller = caller_of(request)
        key, base_url = caller.key, self._base_url(request)
        if key is None:
            return JobOwner(caller.name, None, base_url, self._admission.concurrency_of(caller))
        created = 0.0 if key.created is None else key.created.timestamp()
        return JobOwner(caller.name, key.identity, base_url, self._admission.concurrency_of(caller), created)

    def _base_url(self, request: Request) -> str:
        return base_url(request, self._public_url)


class StatusEvents:
    """The event that tells of a view of a job, made once for all streams of the job."""

    def __init__(self) -> None:
        self._latest: dict[tuple[str, str], tuple[JobStatusView, str]] = {}

    def of(self, view: JobStatusView, base_url: str) -> str:
        """The event, for clients that reach this server at `base_url`."""
        key = view.job.id, base_url
        latest = self._latest.get(key)
        if latest is None or latest[0] is not view:
            if len(self._latest) >= MAX_STATUS_EVENTS:
                self._latest.clear()
            status = json_object(JobStatus.of_view(view, base_url))
            self._latest[key] = latest = view, f"event: status\ndata: {json.dumps(status)}\n\n"
        return latest[1]


class EventStreamResponse(StreamingResponse):
    """Server-sent events: the status at once and at each change, until the job has ended or the time is up."""

    def __init__(
        self, feed: JobFeed, status_events: StatusEvents, job_service: JobService, job_id: str, owner: JobOwner
    ) -> None:
        super().__init__((), media_type="text/event-stream", headers=NO_STORE)
        self._feed = feed
        self._status_events = status_events
        self._job_service = job_service
        self._job_id = job_id
        self._owner = owner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events. Before the first one, raises as `JobFeed.watch` and `JobService.status`."""
        with self._feed.watch(self._job_id, self._owner.caller) as watcher:
            view = await watcher.change()
            self._job_service.check_visible(view.job, self._owner)
            self.body_iterator = self._events(watcher, view)
            # Not by Starlette's method, whose task group takes as long as the rest of a stream's beginning.
            with suppress(ClientGoneError):
                async with WhileConnected(Request(scope, receive)):
                    await self.stream_response(send)

    async def _events(self, watcher: Watcher, view: JobStatusView) -> AsyncIterator[str]:
        yield "retry: 1000\n\n"
        until = asyncio.get_running_loop().time() + MAX_EVENT_STREAM_SECONDS
        last = None
        try:
            while True:
                event = self._status_events.of(view, self._owner.base_url)
                if event != last:
                    last = event
                    yield event
                if view.job.state.final:
                    return
                async with asyncio.timeout_at(until):
                    view = await watcher.change()
        except TimeoutError:
            return
        except ChorusError as error:
            yield f"event: error\ndata: {json.dumps(json_object(Error.of(error).error))}\n\n"


def _wants_stream(request: Request) -> bool:
    """Whether the query has `stream=true`. Raises InvalidRequestError for anything but `true` and `false`."""
    value = request.query_params.get("stream", "false")
    if value not in ("true", "false"):
        raise InvalidRequestError("stream is true or false", param="stream")
    return value == "true"


def _receipts(views: list[JobStatusView], base_url: str) -> bytes:
    """A JobReceipts. Each view is let go at once: thousands in one step would keep all threads from the interpreter."""
    views.reverse()
    receipts = []
    for _ in with_rests(range(len(views))):
        receipts.append(to_json(JobReceipt.of(views.pop(), base_url)))
    return b'{"jobs":[' + b",".join(receipts) + b"]}"


def _file(request: Request, job: Job, file: Path) -> Response:
    """The audio, whole or in the requested ranges; 304 if the client has it already."""
    # The content at this URL never changes.
    headers = {"ETag": f'"{job.digest}"', "Cache-Control": "private, max-age=31536000, immutable"}
    known_tags = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if headers["ETag"] in known_tags or "*" in known_tags:
        return Response(status_code=304, headers=headers)
    return RangeFileResponse(
        file,
        media_type=AudioFormat(job.format).media_type,
        filename=f"{job.id}{job.suffix}",
        content_disposition_type="inline",
        headers=headers,
    )
