"""For operators: `/health`, `/ready`, `/metrics`."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from balancer.answers import JSONResponse
from balancer.dispatch import Dispatcher, WorkerView
from balancer.fleet import WorkerPhase
from balancer.telemetry import Telemetry


def routes(dispatcher: Dispatcher, telemetry: Telemetry) -> list[Route]:
    """The routes."""

    async def health(_: Request) -> Response:
        reason = dispatcher.why_not_serving()
        report = {
            "status": "healthy" if reason is None else "unhealthy",
            "timestamp": datetime.now(UTC).isoformat(),
            "reason": reason,
            "queueDepth": dispatcher.depth,
            "workers": [_worker(view) for view in dispatcher.workers()],
        }
        return JSONResponse(report, 200 if reason is None else 503)

    async def ready(_: Request) -> Response:
        reason = dispatcher.why_not_serving()
        report = {"ready": reason is None, "reason": reason, "timestamp": datetime.now(UTC).isoformat()}
        return JSONResponse(report, 200 if reason is None else 503)

    async def metrics(request: Request) -> Response:
        if "application/json" in request.headers.get("accept", ""):
            return JSONResponse(telemetry.summary(dispatcher.depth))
        phases = Counter(view.phase for view in dispatcher.workers())
        for phase in WorkerPhase:
            telemetry.workers.labels(phase.value).set(phases[phase])
        telemetry.queue_depth.set(dispatcher.depth)
        return Response(telemetry.exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return [Route("/health", health), Route("/ready", ready), Route("/metrics", metrics)]


def _worker(view: WorkerView) -> dict[str, Any]:
    report: dict[str, Any] = {"index": view.index, "phase": view.phase.value, "reason": view.reason}
    if view.state is not None:
        report |= view.state.model_dump(
            mode="json", exclude={"index", "phase", "reason", "in_flight", "progress", "voices_prepared"}
        )
        report["in_flight"] = len(view.state.in_flight)
    return report
