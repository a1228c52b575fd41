"""For operators: `/health`, `/ready`, `/metrics`."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from balancer.api.responses import JSONResponse
from balancer.dispatch.dispatcher import Dispatcher
from balancer.fleet.fleet import WorkerPhase
from balancer.fleet.view import WorkerView
from balancer.metrics import Metrics
from balancer.operations.process_cpu import ProcessCpu


def routes(dispatcher: Dispatcher, metrics: Metrics, cpu: ProcessCpu) -> list[Route]:
    """The routes. `/ready` is for whoever sends clients here, `/health` for whoever would restart this host."""

    async def get_health(_: Request) -> Response:
        reason = dispatcher.why_not_serving()
        report = {
            "status": "healthy" if reason is None else "unhealthy",
            "timestamp": _now(),
            "reason": reason,
            "draining": dispatcher.draining,
            "queueDepth": dispatcher.depth,
            "queueDepths": {priority.value: depth for priority, depth in dispatcher.depths.items()},
            "slots": dispatcher.slots,
            "freeSlots": dispatcher.free_slots,
            "workers": [_worker(view, cpu) for view in dispatcher.workers()],
        }
        return JSONResponse(report, 200 if reason is None else 503)

    async def get_ready(_: Request) -> Response:
        reason = "draining: the operator has taken this host out of service" if dispatcher.draining else None
        reason = reason or dispatcher.why_not_serving()
        views = dispatcher.workers()
        phases = Counter(view.phase for view in views)
        report = {
            "ready": reason is None,
            "reason": reason,
            "draining": dispatcher.draining,
            "phases": {phase.value: phases[phase] for phase in WorkerPhase},
            "reasons": {str(view.index): view.reason for view in views if view.reason},
            "timestamp": _now(),
        }
        return JSONResponse(report, 200 if reason is None else 503)

    async def get_metrics(request: Request) -> Response:
        if "application/json" in request.headers.get("accept", ""):
            return JSONResponse(metrics.summary(dispatcher.depth))
        return Response(metrics.exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return [Route("/health", get_health), Route("/ready", get_ready), Route("/metrics", get_metrics)]


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _worker(view: WorkerView, cpu: ProcessCpu) -> dict[str, Any]:
    report: dict[str, Any] = {"index": view.index, "phase": view.phase.value, "reason": view.reason}
    if view.state is not None:
        report |= view.state.model_dump(
            mode="json", exclude={"index", "phase", "reason", "in_flight", "progress", "voices_prepared"}
        )
        report["in_flight"] = len(view.state.in_flight)
        if (usage := cpu.usage(view.state.pid)) is not None:
            report["cpu_cores"] = round(usage.cores, 2)
    return report
