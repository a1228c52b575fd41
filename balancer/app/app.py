"""Builds the balancer's app from its settings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, ExceptionHandler

from balancer.api.responses import (
    ClientGoneError,
    client_gone_response,
    error_response,
    http_error_response,
    internal_error_response,
)
from balancer.app.background_tasks import STOPPED_ON_HAND_OVER, create_background_tasks
from balancer.app.middleware import with_middleware
from balancer.app.routes import Closeable, create_routes
from balancer.app.services import Services, create_services
from balancer.dispatch.host_state import HostState
from balancer.errors import ChorusError
from balancer.fleet.fleet import Fleet
from balancer.metrics import Metrics
from balancer.runtime.background import Background, BackgroundTask
from balancer.runtime.lifecycle import Lifecycle
from balancer.settings.settings import Settings

MAX_FIRST_PROBES_SECONDS = 10.0
"""A balancer that starts beside running workers accepts connections once it knows one that serves, or has probed all of
them, or after this time: on a host under load a worker answers late."""

FIRST_PROBES_INTERVAL_SECONDS = 0.01

EXCEPTION_HANDLERS: dict[type[Exception], ExceptionHandler] = {
    ChorusError: error_response,
    HTTPException: http_error_response,
    ClientGoneError: client_gone_response,
    ClientDisconnect: client_gone_response,
    Exception: internal_error_response,
}


def create_app(settings: Settings, metrics: Metrics, lifecycle: Lifecycle) -> ASGIApp:
    """Returns the balancer's ASGI app, which stops and hands over as `lifecycle` tells it.

    Blocks, and raises VoiceError, as `create_services`: it is called before the event loop runs.
    """
    services = create_services(settings, metrics)
    background = Background(metrics.background_failures)
    routes, route_pools = create_routes(settings, services)
    pools: list[Closeable] = [
        services.encoders,
        services.held,
        *route_pools,
        services.voices,
        services.degradation,
    ]
    tasks = create_background_tasks(settings, services, lifecycle)
    app = Starlette(
        routes=routes,
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=_lifespan(services, pools, background, tasks),
    )
    # A redirect would name this server by its Host header, wrongly behind a proxy that ends TLS.
    app.router.redirect_slashes = False
    _follow(lifecycle, services, background)
    return with_middleware(app, settings, services)


def _lifespan(
    services: Services, pools: Iterable[Closeable], background: Background, tasks: Iterable[BackgroundTask]
) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    """Returns the app's lifespan: runs the background tasks in it; its end closes the pools and stores."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with background.running(tasks):
            await asyncio.to_thread(services.links.open)
            await _first_probes(services.fleet, services.host_state)
            yield
        for pool in pools:
            pool.close()
        await services.stores.aclose()

    return lifespan


async def _first_probes(fleet: Fleet, host_state: HostState) -> None:
    """Waits until a worker is known to serve, if one does: `/ready` is not to say 503 during a restart."""
    with suppress(TimeoutError):
        async with asyncio.timeout(MAX_FIRST_PROBES_SECONDS):
            while host_state.why_not_serving() is not None and not fleet.surveyed:
                await asyncio.sleep(FIRST_PROBES_INTERVAL_SECONDS)


def _follow(lifecycle: Lifecycle, services: Services, background: Background) -> None:
    """Has the services and background tasks follow the stages of the balancer's life."""
    handing_over: list[asyncio.Task[None]] = []

    def announce_stop() -> None:
        services.host_state.draining = True

    async def finish_jobs() -> None:
        """Gives up what has one owner: the successor claims jobs once those under way here have ended."""
        for name in STOPPED_ON_HAND_OVER:
            await background.stop(name)
        handing_over.append(asyncio.create_task(services.jobs.executor.finish()))

    lifecycle.on_stopping = announce_stop
    lifecycle.on_hand_over.append(finish_jobs)
