"""The composition root: builds the balancer's app from its settings. The only place that knows all the parts."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp

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
from balancer.dispatch import Dispatcher
from balancer.errors import ChorusError
from balancer.fleet import Fleet
from balancer.intake import Intake
from balancer.routes import docs, openai, ops, tts
from balancer.routes import voices as voices_route
from balancer.scheduler import Scheduler
from balancer.settings import Settings
from balancer.speech import SpeechService
from balancer.telemetry import Telemetry
from voices.registry import LiveRegistry
from worker.cards import CARDS

log = logging.getLogger(__name__)


def create_app(settings: Settings) -> ASGIApp:
    """The whole balancer. Raises VoiceError where the voices cannot be read."""
    card = CARDS[settings.engine]
    telemetry = Telemetry()
    fleet = Fleet(
        settings.sockets,
        probe_seconds=settings.probe_seconds,
        probe_timeout=settings.probe_timeout,
        probe_failures=settings.probe_failures,
        recovery_seconds=settings.recovery_seconds,
    )
    dispatcher = Dispatcher(fleet, Scheduler(settings.queue_limit), telemetry, card)
    intake = Intake(card, LiveRegistry(settings.voices_dir), settings.max_text_characters)
    speech = SpeechService(dispatcher, telemetry, card, settings.request_timeout)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        watching = asyncio.create_task(fleet.run(dispatcher))
        watching.add_done_callback(_end_if_crashed)
        announcing = asyncio.create_task(announce(settings, dispatcher))
        yield
        for task in (watching, announcing):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    app = Starlette(
        routes=[
            *openai.routes(speech, intake, settings.max_body_bytes, int(time.time())),
            *tts.routes(speech, intake, settings.max_body_bytes),
            *voices_route.routes(intake),
            *ops.routes(dispatcher, telemetry),
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
    surfaces = frozenset(route.path for route in app.routes if isinstance(route, Route))
    keys = [key.get_secret_value() for key in settings.api_keys]
    return AccessLog(ApiKeyGate(app, keys), telemetry, surfaces)


def _end_if_crashed(watching: asyncio.Task[None]) -> None:
    """A balancer that no longer watches its workers is of no use: end it, to be started afresh."""
    if not watching.cancelled() and (error := watching.exception()) is not None:
        log.critical("the watch over the workers failed", exc_info=error)
        signal.raise_signal(signal.SIGTERM)
