"""Builds the balancer's app from its settings."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import replace
from typing import Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Route
from starlette.types import ASGIApp

from balancer.access.admission import Admission
from balancer.access.host_names import HostNames
from balancer.access.key_ring import KeyRing
from balancer.access.links import Links
from balancer.access.rate_limits import Quota, RateLimits
from balancer.access.trusted_proxies import TrustedProxies
from balancer.api import (
    control,
    docs,
    documents,
    health,
    history,
    links,
    openai,
    operators,
    page,
    queue,
    tts,
    voices,
)
from balancer.api.catalogue import CatalogueRoutes
from balancer.api.middleware.access_log import AccessLogMiddleware
from balancer.api.middleware.authentication import OPEN_PATHS, AuthenticationMiddleware
from balancer.api.middleware.cors import CorsMiddleware
from balancer.api.middleware.forwarded import ForwardedMiddleware
from balancer.api.middleware.host_check import HostCheckMiddleware
from balancer.api.middleware.paths import PathsMiddleware
from balancer.api.middleware.signed_links import SignedLinksMiddleware
from balancer.api.responses import (
    ClientGoneError,
    client_gone_response,
    error_response,
    http_error_response,
    internal_error_response,
)
from balancer.audio.held_audio import HeldAudio
from balancer.cache.best_effort import BestEffortCache
from balancer.cache.weights_fingerprint import weights_fingerprint
from balancer.dispatch.attempt import AttemptTimeouts
from balancer.dispatch.dispatcher import Dispatcher
from balancer.errors import ChorusError
from balancer.fleet.fleet import Fleet
from balancer.jobs.executor import JobExecutor
from balancer.jobs.job_stream import JobStreams
from balancer.jobs.public_network import ReceiverRules
from balancer.jobs.service import JobService
from balancer.jobs.webhook_client import WebhookClient
from balancer.jobs.webhooks import Webhooks
from balancer.metrics import Metrics
from balancer.operations import heartbeat
from balancer.operations.agent_check import AgentCheck
from balancer.operations.degradation import Degradation
from balancer.operations.fleet_collector import FleetCollector
from balancer.operations.handover import Succession, Supervision, ask_predecessor, stop_predecessor
from balancer.operations.history import History
from balancer.operations.history_sampler import HistorySampler
from balancer.operations.loop_lag import observe_loop_lag
from balancer.operations.process_cpu import ProcessCpu
from balancer.operations.ready_banner import print_ready_banner
from balancer.operations.recycling import RecycleLimits, WorkerRecycler
from balancer.operations.systemd_status import report_to_systemd
from balancer.operations.voice_library import VoiceLibrary
from balancer.requests.validation import RequestValidator
from balancer.runtime.background import Background, BackgroundTask, OnFailure
from balancer.runtime.lifecycle import Lifecycle
from balancer.runtime.systemd import is_notified
from balancer.scheduling.scheduler import Scheduler
from balancer.scheduling.stream_headroom import StreamHeadroom
from balancer.settings.jobs import JobSettings
from balancer.settings.limits import RateLimitSettings
from balancer.settings.scheduling import AttemptSettings
from balancer.settings.settings import Settings
from balancer.settings.storage import StorageSettings
from balancer.speech.cache_keys import CacheKeys
from balancer.speech.encoder_pool import EncoderPool
from balancer.speech.service import SpeechService
from balancer.stores import Stores, open_stores
from voices.watched_registry import WatchedRegistry

log = logging.getLogger(__name__)

MAX_FIRST_PROBES_SECONDS = 10.0
"""A balancer that starts beside running workers accepts connections once it knows one that serves, or has probed all of
them, or after this time: on a host under load a worker answers late."""

FIRST_PROBES_INTERVAL_SECONDS = 0.01


class Closeable(Protocol):
    """A pool of threads, or what owns one."""

    def close(self) -> None:
        """End the threads as they become idle; do not wait for them."""


def create_app(settings: Settings, metrics: Metrics, lifecycle: Lifecycle) -> ASGIApp:
    """Returns the balancer's ASGI app, which stops and hands over as `lifecycle` tells it.

    Blocks: the audio cache needs a fingerprint of the weights, so it is called before the event loop runs. Raises
    VoiceError if the voices cannot be read.
    """
    card = settings.engine_options().card
    limits = settings.limits
    stores = open_stores(settings.storage, settings.jobs)
    fleet = Fleet(settings.server.socket_dir, settings.probes)
    dispatcher = Dispatcher(
        fleet,
        Scheduler(settings.scheduling),
        metrics,
        card,
        _attempt_timeouts(settings.attempts),
        ejection_failures=settings.probes.ejection_failures,
    )
    registry = WatchedRegistry(settings.storage.voices_dir)
    library = VoiceLibrary(settings.storage.voices_dir, settings.storage.cache_dir, registry)
    validator = RequestValidator(card, registry, limits.max_text_characters, settings.text.normalize)
    job_validator = replace(validator, max_characters=limits.job_text_characters)
    held = HeldAudio(settings.memory)
    encoders = EncoderPool(held, limit=settings.scheduling.queue_limit, threads=settings.memory.encoder_threads)
    headroom = StreamHeadroom(
        lambda: dispatcher.capacity, best_effort=settings.streams.stream_admission == "best_effort"
    )
    _set_gauges(metrics, headroom, encoders, held)
    speech = SpeechService(
        dispatcher,
        metrics,
        card,
        timeout=limits.request_timeout,
        pauses=settings.pauses,
        streams=settings.streams,
        held=held,
        encoders=encoders,
        headroom=headroom,
        cache=BestEffortCache(stores.audio, metrics),
        keys=None if stores.audio is None else _cache_keys(settings),
        log_text=settings.logging.log_text,
    )
    admission = Admission(
        _rate_limits(settings.rates, stores), _quota(settings.rates), metrics, timeout=limits.request_timeout
    )
    executor = JobExecutor(stores.jobs, speech, job_validator, dispatcher, metrics, settings.jobs)
    job_service = JobService(
        stores.jobs,
        dispatcher,
        executor,
        settings.jobs,
        sample_rate=card.sample_rate,
        max_encoded_bytes=held.files.caller_limit,
    )
    job_streams = JobStreams(
        stores.jobs,
        speech,
        job_validator,
        held,
        encoders,
        metrics,
        sample_rate=card.sample_rate,
        pauses=settings.pauses,
    )
    job_routes = queue.QueueRoutes(
        job_service,
        job_validator,
        admission,
        held.memory,
        limits,
        settings.jobs,
        job_streams,
        settings.server.public_url,
    )
    document_routes = documents.DocumentRoutes(admission, held, max_characters=limits.job_text_characters)
    catalogue = CatalogueRoutes(validator, admission, dispatcher, held.memory, limits, settings.pauses)
    keys = KeyRing([key.get_secret_value() for key in settings.access.api_keys], settings.keys_path)
    keys.watch()
    link_secret = settings.access.link_secret
    signed_links = Links(
        keys,
        None if link_secret is None else link_secret.get_secret_value(),
        settings.storage.data_dir / "link.secret",
    )
    process_cpu = ProcessCpu()
    degradation = _degradation(settings.storage, stores)
    metrics.degraded.set_function(lambda: len(degradation.reasons()))
    background = Background(metrics.background_failures)
    metrics.registry.register(FleetCollector(dispatcher, process_cpu))
    past = History(time.monotonic, time.time())
    history_sampler = HistorySampler(past, metrics, dispatcher)

    async def before_accepting() -> None:
        await asyncio.to_thread(signed_links.open)
        await _first_probes(fleet, dispatcher)

    app = Starlette(
        routes=[
            *openai.routes(
                speech,
                validator,
                admission,
                held,
                max_body_bytes=limits.max_body_bytes,
                started_at=int(time.time()),
            ),
            *tts.routes(
                speech,
                validator,
                admission,
                held,
                max_body_bytes=limits.max_body_bytes,
                max_json_audio=settings.memory.json_audio_bytes,
                get_tts=settings.access.get_tts,
            ),
            *links.routes(
                signed_links,
                validator,
                admission,
                held.memory,
                max_body_bytes=limits.max_body_bytes,
                max_line_bytes=settings.http.max_header_bytes,
                public_url=settings.server.public_url,
            ),
            *job_routes.routes(),
            *document_routes.routes(),
            *voices.routes(validator, library, held.files),
            *operators.routes(dispatcher),
            *health.routes(dispatcher, metrics, process_cpu, past, degradation),
            *history.routes(past),
            *catalogue.routes(),
            *page.routes(offered=settings.access.page),
            *docs.routes(validator),
        ],
        exception_handlers={
            ChorusError: error_response,
            HTTPException: http_error_response,
            ClientGoneError: client_gone_response,
            ClientDisconnect: client_gone_response,
            Exception: internal_error_response,
        },
        lifespan=_lifespan(
            stores,
            [encoders, held, job_routes, document_routes, catalogue, library, degradation],
            background,
            [
                # Its view of the workers is shared with every request that waits for one of them.
                BackgroundTask("fleet", lambda: fleet.run(dispatcher), OnFailure.END_PROCESS),
                # The others find what they left undone: in the job store, in the workers' states, on their socket.
                BackgroundTask("jobs", executor.run),
                BackgroundTask("ready banner", lambda: print_ready_banner(settings, dispatcher)),
                BackgroundTask("degradation", degradation.run),
                *_systemd(settings, dispatcher, lifecycle),
                BackgroundTask("loop lag", lambda: observe_loop_lag(metrics.record_loop_lag)),
                BackgroundTask("history", history_sampler.run),
                *_operations(settings, dispatcher, lifecycle, process_cpu, past),
                *_webhooks(settings.jobs, stores, metrics),
                *_agent_check(settings, dispatcher, metrics),
            ],
            before_accepting,
        ),
    )

    def announce_stop() -> None:
        dispatcher.draining = True

    async def finish_jobs() -> None:
        """Gives up what has one owner: the successor claims jobs once those under way here have ended."""
        await background.stop("recycling")
        await background.stop("webhooks")
        await background.stop("agent check")
        handing_over.append(asyncio.create_task(executor.finish()))

    handing_over: list[asyncio.Task[None]] = []
    lifecycle.on_stopping = announce_stop
    lifecycle.on_hand_over.append(finish_jobs)
    # A redirect would name this server by its Host header, wrongly behind a proxy that ends TLS.
    app.router.redirect_slashes = False
    return _with_middleware(app, settings, metrics, keys, signed_links)


def _set_gauges(metrics: Metrics, headroom: StreamHeadroom, encoders: EncoderPool, held: HeldAudio) -> None:
    metrics.stream_headroom.set_function(lambda: headroom.left)
    metrics.encoder_queue_depth.set_function(lambda: encoders.depth)
    metrics.encoders_running.set_function(lambda: encoders.running)
    metrics.audio_memory_bytes.set_function(lambda: held.memory.taken)
    metrics.audio_file_bytes.set_function(lambda: held.files.taken)


def _degradation(storage: StorageSettings, stores: Stores) -> Degradation:
    folders = {"jobs, keys and daily limits": storage.data_dir, "audio cache": storage.cache_dir}
    return Degradation(folders, stores.redis)


def _lifespan(
    stores: Stores,
    pools: Sequence[Closeable],
    background: Background,
    tasks: Iterable[BackgroundTask],
    before_accepting: Callable[[], Awaitable[None]],
) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    """Returns the app's lifespan: runs the background tasks in it; its end closes the pools and stores."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with background.running(tasks):
            await before_accepting()
            yield
        for pool in pools:
            pool.close()
        await stores.aclose()

    return lifespan


async def _first_probes(fleet: Fleet, dispatcher: Dispatcher) -> None:
    """Waits until a worker is known to serve, if one does: `/ready` is not to say 503 during a restart."""
    with suppress(TimeoutError):
        async with asyncio.timeout(MAX_FIRST_PROBES_SECONDS):
            while dispatcher.why_not_serving() is not None and not fleet.surveyed:
                await asyncio.sleep(FIRST_PROBES_INTERVAL_SECONDS)


def _operations(
    settings: Settings, dispatcher: Dispatcher, lifecycle: Lifecycle, process_cpu: ProcessCpu, past: History
) -> list[BackgroundTask]:
    """The recycling of workers, the heartbeat for the watchdog, and the control socket."""
    recycling, folder = settings.recycling, settings.server.socket_dir
    recycler = WorkerRecycler(dispatcher, RecycleLimits(recycling.recycle_utterances, recycling.recycle_bytes))
    supervision = Supervision.of(os.environ)
    control_api = control.create_control_api(
        dispatcher,
        recycler,
        process_cpu,
        past,
        Succession(supervision, lifecycle),
        hand_over=lifecycle.hand_over,
    )

    async def take_control() -> None:
        """Takes the control socket from a predecessor, and has that stopped."""
        replaces = await ask_predecessor(supervision, settings.server.control_socket, lifecycle)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(control.serve(control_api, settings.server.control_socket))
            if replaces and supervision is not None:
                tasks.create_task(stop_predecessor(supervision))

    tasks = [BackgroundTask("recycling", recycler.run), BackgroundTask("control socket", take_control)]
    if supervision is not None:
        program = supervision.program
        tasks.append(BackgroundTask("heartbeat", lambda: heartbeat.beat(folder, program)))
    return tasks


def _webhooks(jobs: JobSettings, stores: Stores, metrics: Metrics) -> list[BackgroundTask]:
    """The delivery of webhooks, if they are offered."""
    if jobs.webhook_secret is None:
        return []
    secret = jobs.webhook_secret.get_secret_value()
    client = WebhookClient(secret, ReceiverRules.of(jobs))
    webhooks = Webhooks(stores.jobs, metrics, client)
    return [BackgroundTask("webhooks", webhooks.run)]


def _systemd(settings: Settings, dispatcher: Dispatcher, lifecycle: Lifecycle) -> list[BackgroundTask]:
    """The report to systemd, if it has asked for one."""
    if not is_notified():
        return []
    workers = settings.layout.workers
    return [BackgroundTask("systemd", lambda: report_to_systemd(dispatcher, lifecycle, workers=workers))]


def _agent_check(settings: Settings, dispatcher: Dispatcher, metrics: Metrics) -> list[BackgroundTask]:
    """The answer to HAProxy's agent check, if it is asked for."""
    host, port = settings.server.host, settings.server.agent_port
    if port is None:
        return []
    agent_check = AgentCheck(dispatcher, lambda: metrics.open_requests)
    return [BackgroundTask("agent check", lambda: agent_check.serve(host, port))]


def _with_middleware(
    app: Starlette, settings: Settings, metrics: Metrics, keys: KeyRing, signed_links: Links
) -> ASGIApp:
    open_paths = list(OPEN_PATHS)
    if settings.access.open_metrics:
        open_paths += ["/metrics"]
    if settings.access.open_docs:
        open_paths += ["/openapi.json", "/docs"]
    if settings.access.page:
        open_paths += page.PAGE_PATHS
    routes = [route for route in app.routes if isinstance(route, Route)]
    authenticated = AuthenticationMiddleware(app, keys, tuple(open_paths))
    admitted: ASGIApp = SignedLinksMiddleware(app, authenticated, signed_links)
    if origins := settings.access.allowed_origins:
        admitted = CorsMiddleware(admitted, origins)
    guarded = HostCheckMiddleware(admitted, keys, _host_names(settings))
    logged = AccessLogMiddleware(guarded, metrics, routes)
    proxies = TrustedProxies(settings.server.trusted_proxies)
    return PathsMiddleware(ForwardedMiddleware(logged, proxies) if proxies else logged)


def _host_names(settings: Settings) -> HostNames | None:
    """Returns the names under which clients reach this server; None if any may be one of them."""
    server, access = settings.server, settings.access
    if not server.loopback and not access.allowed_hosts:
        return None
    return HostNames(server.public_url, access.allowed_hosts, access.allowed_origins)


def _attempt_timeouts(attempts: AttemptSettings) -> AttemptTimeouts:
    return AttemptTimeouts(attempts.attempt_seconds, attempts.attempt_factor, attempts.hedge_factor)


def _rate_limits(rates: RateLimitSettings, stores: Stores) -> RateLimits:
    return RateLimits(
        shape=rates.rate_mode == "shape",
        redis=stores.redis,
        without_redis=rates.rate_without_redis,
        daily_counters=stores.daily_counters,
    )


def _quota(rates: RateLimitSettings) -> Quota:
    return Quota(
        rates.rate_requests_per_minute,
        rates.rate_interval_seconds,
        rates.rate_characters_per_minute,
        concurrency=rates.rate_concurrency,
    )


def _cache_keys(settings: Settings) -> CacheKeys:
    """Returns the keys of the audio cache. Reads weights that are new on this host in full, which takes seconds."""
    return CacheKeys(
        settings.engine_options().audio_label(),
        weights_fingerprint(settings),
        settings.storage.voices_dir,
        per_caller=settings.storage.cache_scope == "caller",
    )
