"""Endpoints for operators: `/health`, `/ready`, `/livez`, `/metrics`.

Where API keys are required, health checks need none, but learn only what they need: processes, memory and reasons,
which may name files, are for callers with a key and for the control socket.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from balancer.access.caller import is_stranger
from balancer.api.models.health import (
    Health,
    HealthStatus,
    Liveness,
    MetricsSummary,
    Readiness,
    ReadinessStatus,
    RunningReport,
    WarningReport,
    WorkerProcessReport,
    WorkerReport,
)
from balancer.api.responses import JSONResponse
from balancer.dispatch.host_state import HostState
from balancer.fleet.fleet import WorkerPhase
from balancer.fleet.view import WorkerView
from balancer.metrics import Metrics
from balancer.operations.degradation import Degradation
from balancer.operations.history import History
from balancer.operations.process_cpu import ProcessCpu
from balancer.operations.warnings import warnings_of
from balancer.version import FULL_VERSION

_STATE_FIELDS = (
    WorkerProcessReport.model_fields.keys() - WorkerReport.model_fields.keys() - {"in_flight", "running", "cpu_cores"}
)
"""Fields of a worker's state that `/health` reports as they are."""


def routes(
    host_state: HostState, metrics: Metrics, cpu: ProcessCpu, past: History, degradation: Degradation
) -> list[Route]:
    """The routes. Load balancers poll `/ready`; supervisors of this host poll `/health`."""

    async def get_health(request: Request) -> Response:
        health: HealthStatus = health_of(host_state, cpu, past)
        status = 200 if health.status == "healthy" else 503
        if is_stranger(request):
            health = HealthStatus.model_validate(health.model_dump(include=set(HealthStatus.model_fields)))
        return JSONResponse(health, status)

    async def get_ready(request: Request) -> Response:
        reason = "draining: the operator has taken this host out of service" if host_state.draining else None
        reason = reason or host_state.why_not_serving()
        views = host_state.workers()
        phases = Counter(view.phase for view in views)
        readiness: ReadinessStatus = Readiness(
            ready=reason is None,
            reason=reason,
            degraded=degradation.reasons(),
            draining=host_state.draining,
            phases={phase: phases[phase] for phase in WorkerPhase},
            reasons={str(view.index): view.reason for view in views if view.reason},
            timestamp=_now(),
        )
        if is_stranger(request):
            readiness = ReadinessStatus.model_validate(readiness.model_dump(include=set(ReadinessStatus.model_fields)))
        return JSONResponse(readiness, 200 if reason is None else 503)

    async def get_livez(_: Request) -> Response:
        return JSONResponse(Liveness(alive=True))

    async def get_metrics(request: Request) -> Response:
        if "application/json" in request.headers.get("accept", ""):
            return JSONResponse(MetricsSummary.model_validate(metrics.summary(host_state.depth)))
        return Response(metrics.exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return [
        Route("/health", get_health),
        Route("/ready", get_ready),
        Route("/livez", get_livez),
        Route("/metrics", get_metrics),
    ]


def health_of(host_state: HostState, cpu: ProcessCpu, past: History) -> Health:
    """The state of the server and of every worker."""
    reason = host_state.why_not_serving()
    workers = host_state.workers()
    warnings = warnings_of(past.last_minute, workers, draining=host_state.draining)
    return Health(
        status="healthy" if reason is None else "unhealthy",
        timestamp=_now(),
        version=FULL_VERSION,
        reason=reason,
        draining=host_state.draining,
        queue_depth=host_state.depth,
        queue_depths={priority.value: depth for priority, depth in host_state.depths.items()},
        slots=host_state.slots,
        free_slots=host_state.free_slots,
        warnings=[WarningReport(code=warning.code, message=warning.message) for warning in warnings],
        workers=[_worker(view, cpu) for view in workers],
    )


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _worker(view: WorkerView, cpu: ProcessCpu) -> WorkerReport:
    if (state := view.state) is None:
        return WorkerReport(index=view.index, phase=view.phase, reason=view.reason)
    usage = cpu.usage(state.pid)
    return WorkerProcessReport(
        index=view.index,
        phase=view.phase,
        reason=view.reason,
        **state.model_dump(include=_STATE_FIELDS),
        in_flight=len(state.in_flight),
        running=list(map(RunningReport.of, view.running)),
        **({} if usage is None else {"cpu_cores": round(usage.cores, 2)}),
    )
