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

from balancer.access.admission import Admission
from balancer.access.api_keys import KeyRing
from balancer.access.rate_limits import Quota, RateLimits
from balancer.api import control, docs, health, openai, queue, tts
from balancer.api import voices as voices_route
from balancer.api.middleware.access_log import AccessLogMiddleware
from balancer.api.middleware.authentication import OPEN_PATHS, AuthenticationMiddleware
from balancer.api.responses import (
    ClientGoneError,
    client_gone_response,
    error_response,
    http_error_response,
    internal_error_response,
)
from balancer.cache.best_effort import BestEffortCache
from balancer.dispatch.attempt import AttemptTimeouts
from balancer.dispatch.dispatcher import Dispatcher
from balancer.errors import ChorusError
from balancer.fleet.fleet import Fleet
from balancer.jobs.executor import JobExecutor
from balancer.jobs.service import JobService
from balancer.jobs.webhooks import Webhooks
from balancer.metrics import Metrics
from balancer.operations.fleet_collector import FleetCollector
from balancer.operations.loop_lag import observe_loop_lag
from balancer.operations.process_cpu import ProcessCpu
from balancer.operations.ready_banner import print_ready_banner
from balancer.operations.recycling import RecycleLimits, WorkerRecycler
from balancer.requests.validation import RequestValidator
from balancer.scheduling.scheduler import Scheduler
from balancer.settings import Settings
from balancer.speech.cache_keys import CacheKeys
from balancer.speech.service import SpeechService
from balancer.stores import DAY_SECONDS, open_stores
from voices.registry import LiveRegistry
from worker.checkpoints.fingerprint import fingerprint

log = logging.getLogger(__name__)


def create_app(settings: Settings, replace_balancer: Callable[[], None]) -> ASGIApp:
    """The balancer's ASGI app. `replace_balancer` restarts this process without losing a connection.

    Blocks: the audio cache needs a fingerprint of the weights, so it is called before the event loop runs. Raises
    VoiceError if the voices cannot be read, KeysFileError if the API keys cannot.
    """
    card = settings.engine_options().card
    metrics = Metrics(settings.engine.engine)
    fleet = Fleet(
        settings.server.socket_dir,
        probe_seconds=settings.probes.probe_seconds,
        probe_timeout=settings.probes.probe_timeout,
        probe_failures=settings.probes.probe_failures,
        recovery_seconds=settings.probes.recovery_seconds,
        unresponsive_seconds=settings.probes.unresponsive_seconds,
    )
    scheduling, attempts = settings.scheduling, settings.attempts
    scheduler = Scheduler(
        scheduling.queue_limit,
        sjf_window=scheduling.sjf_window,
        batch_ageing_seconds=scheduling.batch_ageing_seconds,
    )
    timeouts = AttemptTimeouts(attempts.attempt_seconds, attempts.attempt_factor, attempts.hedge_factor)
    dispatcher = Dispatcher(fleet, scheduler, metrics, card, timeouts)
    validator = RequestValidator(card, LiveRegistry(settings.storage.voices_dir), settings.limits.max_text_characters)
    stores = open_stores(settings.storage)
    cache = BestEffortCache(stores.audio, metrics)
    speech = SpeechService(
        dispatcher,
        metrics,
        card,
        timeout=settings.limits.request_timeout,
        cache=cache,
        keys=None if stores.audio is None else _cache_keys(settings),
        log_text=settings.logging.log_text,
    )
    limits = RateLimits(
        shape=settings.rates.rate_mode == "shape",
        redis=stores.redis,
        open_without_redis=settings.rates.rate_without_redis == "open",
        daily_counters=stores.daily_counters,
    )
    quota = Quota(
        settings.rates.rate_requests_per_minute,
        settings.rates.rate_interval_seconds,
        settings.rates.rate_characters_per_minute,
        concurrency=settings.rates.rate_concurrency,
    )
    admission = Admission(limits, quota, metrics, timeout=settings.limits.request_timeout)
    executor = JobExecutor(
        stores.jobs,
        speech,
        validator,
        dispatcher,
        metrics,
        attempts=settings.jobs.job_attempts,
        retention=settings.jobs.job_days * DAY_SECONDS,
    )
    secret = settings.jobs.webhook_secret
    job_service = JobService(
        stores.jobs,
        dispatcher,
        executor,
        max_queued=settings.jobs.jobs_limit,
        webhooks_enabled=secret is not None,
        allow_private=settings.jobs.webhook_private,
    )
    cpu = ProcessCpu()
    metrics.registry.register(FleetCollector(dispatcher, cpu))
    recycler = WorkerRecycler(
        dispatcher, RecycleLimits(settings.recycling.recycle_utterances, _bytes(settings.recycling.recycle_mib))
    )

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        beside = [
            fleet.run(dispatcher),
            executor.run(),
            print_ready_banner(settings, dispatcher),
            recycler.run(),
            observe_loop_lag(metrics.loop_lag),
            control.serve(
                control.create_control_api(dispatcher, recycler, replace_balancer), settings.server.control_socket
            ),
        ]
        if secret is not None:
            key, private = secret.get_secret_value(), settings.jobs.webhook_private
            beside.append(Webhooks(stores.jobs, metrics, key, allow_private=private).run())
        tasks = [asyncio.create_task(part) for part in beside]
        for task in tasks:
            task.add_done_callback(_terminate_if_crashed)
        yield
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await stores.aclose()

    app = Starlette(
        routes=[
            *openai.routes(speech, validator, admission, settings.limits.max_body_bytes, int(time.time())),
            *tts.routes(speech, validator, admission, settings.limits.max_body_bytes),
            *queue.QueueRoutes(
                job_service,
                validator,
                admission,
                max_body_bytes=settings.limits.max_body_bytes,
                max_batch_bytes=settings.limits.max_batch_bytes,
                public_url=settings.server.public_url,
            ).routes(),
            *voices_route.routes(validator),
            *health.routes(dispatcher, metrics, cpu),
            *docs.routes(validator),
        ],
        exception_handlers={
            ChorusError: error_response,
            HTTPException: http_error_response,
            ClientGoneError: client_gone_response,
            Exception: internal_error_response,
        },
        lifespan=lifespan,
    )
    # A redirect would name this server by its Host header, wrongly behind a proxy that ends TLS.
    app.router.redirect_slashes = False
    routes = [route for route in app.routes if isinstance(route, Route)]
    ring = KeyRing([key.get_secret_value() for key in settings.access.api_keys], settings.keys_path)
    return AccessLogMiddleware(AuthenticationMiddleware(app, ring, _open_paths(settings)), metrics, routes)


def _open_paths(settings: Settings) -> tuple[str, ...]:
    metrics_path = ("/metrics",) if settings.access.open_metrics else ()
    documents = ("/openapi.json", "/docs") if settings.access.open_docs else ()
    return (*OPEN_PATHS, *metrics_path, *documents)


def _cache_keys(settings: Settings) -> CacheKeys:
    """The keys of the audio cache. Reads weight files that are new to this host to their end: that takes seconds."""
    engine = settings.engine
    weights_fingerprint = fingerprint(
        engine.card,
        model_dir=engine.model_dir,
        revision=engine.model_revision,
        notes=settings.storage.cache_dir / "weights.json",
    )
    return CacheKeys(settings.engine_options().label(), weights_fingerprint, settings.storage.voices_dir)


def _bytes(mib: int | None) -> int | None:
    return None if mib is None else mib * 2**20


def _terminate_if_crashed(part: asyncio.Task[None]) -> None:
    """A balancer without its watch over the workers, its jobs or its operator's entrance is of no use: start afresh."""
    if not part.cancelled() and (error := part.exception()) is not None:
        log.critical("a part of the balancer failed: %s", part.get_name(), exc_info=error)
        signal.raise_signal(signal.SIGTERM)
