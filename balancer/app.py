"""The composition root: builds the balancer's app from its settings. The only place that knows all the parts."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp

from balancer import control, loop_lag
from balancer.access import ApiKeyGate
from balancer.access_log import AccessLog
from balancer.announcement import announce
from balancer.answers import (
    ClientGoneError,
    answer_client_gone,
    answer_defect,
    answer_error,
    answer_http_error,
)
from balancer.cpu import CpuWatch
from balancer.dispatch import Dispatcher, Patience
from balancer.errors import ChorusError
from balancer.fleet import Fleet
from balancer.fleet_metrics import FleetMetrics
from balancer.intake import Intake
from balancer.routes import docs, openai, ops, tts
from balancer.routes import voices as voices_route
from balancer.scheduler import Scheduler
from balancer.settings import Settings
from balancer.speech import SpeechService
from balancer.telemetry import Telemetry
from balancer.upkeep import Limits, Upkeep
from voices.registry import LiveRegistry
from worker.cards import CARDS

log = logging.getLogger(__name__)


def create_app(settings: Settings, replace_balancer: Callable[[], None]) -> ASGIApp:
    """The whole balancer. `replace_balancer` has this process start afresh without losing a connection.

    Raises VoiceError where the voices cannot be read.
    """
    card = CARDS[settings.engine]
    telemetry = Telemetry(settings.engine)
    fleet = Fleet(
        settings.sockets,
        probe_seconds=settings.probe_seconds,
        probe_timeout=settings.probe_timeout,
        probe_failures=settings.probe_failures,
        recovery_seconds=settings.recovery_seconds,
        hung_seconds=settings.hung_seconds,
    )
    scheduler = Scheduler(settings.queue_limit, overtaking=settings.overtaking, batch_patience=settings.batch_patience)
    patience = Patience(settings.attempt_seconds, settings.attempt_factor, settings.hedge_factor)
    dispatcher = Dispatcher(fleet, scheduler, telemetry, card, patience)
    intake = Intake(card, LiveRegistry(settings.voices_dir), settings.max_text_characters)
    speech = SpeechService(dispatcher, telemetry, card, timeout=settings.request_timeout, log_text=settings.log_text)
    cpu = CpuWatch()
    telemetry.registry.register(FleetMetrics(dispatcher, cpu))
    upkeep = Upkeep(dispatcher, Limits(settings.recycle_utterances, _bytes(settings.recycle_mib)))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        watching = asyncio.create_task(fleet.run(dispatcher))
        watching.add_done_callback(_end_if_crashed)
        beside = (
            announce(settings, dispatcher),
            upkeep.run(),
            loop_lag.watch(telemetry.loop_lag),
            control.serve(control.create_control(dispatcher, upkeep, replace_balancer), settings.control_socket),
        )
        tasks = [watching, *map(asyncio.create_task, beside)]
        yield
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    app = Starlette(
        routes=[
            *openai.routes(speech, intake, settings.max_body_bytes, int(time.time())),
            *tts.routes(speech, intake, settings.max_body_bytes),
            *voices_route.routes(intake),
            *ops.routes(dispatcher, telemetry, cpu),
            *docs.routes(intake),
        ],
        exception_handlers={
            ChorusError: answer_error,
            HTTPException: answer_http_error,
            ClientGoneError: answer_client_gone,
            Exception: answer_defect,
        },
        lifespan=lifespan,
    )
    # A redirect would name this server by its Host header, wrongly behind a proxy that ends TLS.
    app.router.redirect_slashes = False
    routes = [route for route in app.routes if isinstance(route, Route)]
    keys = [key.get_secret_value() for key in settings.api_keys]
    return AccessLog(ApiKeyGate(app, keys), telemetry, routes)


def _bytes(mib: int | None) -> int | None:
    return None if mib is None else mib * 2**20


def _end_if_crashed(watching: asyncio.Task[None]) -> None:
    """A balancer that no longer watches its workers is of no use: end it, to be started afresh."""
    if not watching.cancelled() and (error := watching.exception()) is not None:
        log.critical("the watch over the workers failed", exc_info=error)
        signal.raise_signal(signal.SIGTERM)
