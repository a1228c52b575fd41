"""The services of a balancer, which its routes and background tasks share."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from balancer.access.admission import Admission
from balancer.access.key_ring import KeyRing
from balancer.access.links import Links
from balancer.access.rate_limits import Quota, RateLimits
from balancer.audio.held_audio import HeldAudio
from balancer.cache.best_effort import BestEffortCache
from balancer.cache.weights_fingerprint import weights_fingerprint
from balancer.dispatch.attempt import AttemptTimeouts
from balancer.dispatch.dispatcher import Dispatcher
from balancer.dispatch.host_state import HostState
from balancer.fleet.fleet import Fleet
from balancer.jobs.executor import JobExecutor
from balancer.jobs.job_stream import JobStreams
from balancer.jobs.outage_log import OutageLog
from balancer.jobs.service import JobService
from balancer.metrics import Metrics
from balancer.operations.degradation import Degradation
from balancer.operations.fleet_collector import FleetCollector
from balancer.operations.history import History
from balancer.operations.history_sampler import HistorySampler
from balancer.operations.process_cpu import ProcessCpu
from balancer.operations.voice_library import VoiceLibrary
from balancer.requests.validation import RequestValidator
from balancer.scheduling.scheduler import Scheduler
from balancer.scheduling.stream_headroom import StreamHeadroom
from balancer.settings.access import AccessSettings
from balancer.settings.limits import RateLimitSettings
from balancer.settings.settings import Settings
from balancer.settings.storage import StorageSettings
from balancer.speech.cache_keys import CacheKeys
from balancer.speech.encoder_pool import EncoderPool
from balancer.speech.service import SpeechService
from balancer.speech.synthesizer import Synthesizer
from balancer.stores import Stores, open_stores
from voices.watched_registry import WatchedRegistry
from worker.cards import EngineCard


@dataclass(frozen=True)
class JobServices:
    """What accepts jobs, carries them out and plays them."""

    validator: RequestValidator
    """Allows texts of a job's length."""
    executor: JobExecutor
    service: JobService
    streams: JobStreams


@dataclass(frozen=True)
class Services:
    """The services of one balancer."""

    metrics: Metrics
    stores: Stores
    fleet: Fleet
    dispatcher: Dispatcher
    host_state: HostState
    validator: RequestValidator
    voices: VoiceLibrary
    held: HeldAudio
    encoders: EncoderPool
    speech: SpeechService
    admission: Admission
    jobs: JobServices
    keys: KeyRing
    links: Links
    process_cpu: ProcessCpu
    degradation: Degradation
    history: History
    history_sampler: HistorySampler


def create_services(settings: Settings, metrics: Metrics) -> Services:
    """Returns the services. Of them only the watch on the keys file has begun.

    Blocks: the audio cache needs a fingerprint of the weights, so it is called before the event loop runs. Raises
    VoiceError if the voices cannot be read.
    """
    limits, storage = settings.limits, settings.storage
    card = settings.engine_options().card
    stores = open_stores(storage, settings.jobs)
    fleet = Fleet(settings.server.socket_dir, settings.probes)
    dispatcher = _dispatcher(settings, card, fleet, metrics)
    host_state = dispatcher.host_state
    registry = WatchedRegistry(storage.voices_dir)
    voices = VoiceLibrary(storage.voices_dir, storage.cache_dir, registry)
    validator = RequestValidator(card, registry, limits.max_text_characters, settings.text.normalize)
    held = HeldAudio(settings.memory)
    encoders = EncoderPool(held, limit=settings.scheduling.queue_limit, threads=settings.memory.encoder_threads)
    speech = _speech(settings, card, metrics, stores, dispatcher, held, encoders)
    admission = Admission(
        _rate_limits(settings.rates, stores), _quota(settings.rates), metrics, timeout=limits.request_timeout
    )
    job_validator = replace(validator, max_characters=limits.job_text_characters)
    jobs = _jobs(settings, metrics, stores, host_state, job_validator, speech, held, encoders)
    keys = KeyRing([key.get_secret_value() for key in settings.access.api_keys], settings.keys_path)
    keys.watch()
    links = _links(settings.access, storage, keys)
    process_cpu = ProcessCpu()
    degradation = _degradation(storage, stores)
    metrics.degraded.set_function(lambda: len(degradation.reasons()))
    metrics.registry.register(FleetCollector(host_state, process_cpu))
    history = History(time.monotonic, time.time())
    return Services(
        metrics=metrics,
        stores=stores,
        fleet=fleet,
        dispatcher=dispatcher,
        host_state=host_state,
        validator=validator,
        voices=voices,
        held=held,
        encoders=encoders,
        speech=speech,
        admission=admission,
        jobs=jobs,
        keys=keys,
        links=links,
        process_cpu=process_cpu,
        degradation=degradation,
        history=history,
        history_sampler=HistorySampler(history, metrics, host_state),
    )


def _dispatcher(settings: Settings, card: EngineCard, fleet: Fleet, metrics: Metrics) -> Dispatcher:
    attempts = settings.attempts
    return Dispatcher(
        fleet,
        Scheduler(settings.scheduling),
        metrics,
        card,
        AttemptTimeouts(attempts.attempt_seconds, attempts.attempt_factor, attempts.hedge_factor),
        ejection_failures=settings.probes.ejection_failures,
    )


def _speech(
    settings: Settings,
    card: EngineCard,
    metrics: Metrics,
    stores: Stores,
    dispatcher: Dispatcher,
    held: HeldAudio,
    encoders: EncoderPool,
) -> SpeechService:
    headroom = StreamHeadroom(
        lambda: dispatcher.host_state.capacity, best_effort=settings.streams.stream_admission == "best_effort"
    )
    _set_gauges(metrics, headroom, encoders, held)
    synthesizer = Synthesizer(
        dispatcher,
        metrics,
        card,
        pauses=settings.pauses,
        held=held,
        encoders=encoders,
        cache=BestEffortCache(stores.audio, metrics),
        cache_keys=None if stores.audio is None else _cache_keys(settings),
    )
    return SpeechService(
        synthesizer,
        dispatcher,
        metrics,
        card,
        timeout=settings.limits.request_timeout,
        pauses=settings.pauses,
        streams=settings.streams,
        held=held,
        encoders=encoders,
        headroom=headroom,
        log_text=settings.logging.log_text,
    )


def _set_gauges(metrics: Metrics, headroom: StreamHeadroom, encoders: EncoderPool, held: HeldAudio) -> None:
    metrics.stream_headroom.set_function(lambda: headroom.left)
    metrics.encoder_queue_depth.set_function(lambda: encoders.depth)
    metrics.encoders_running.set_function(lambda: encoders.running)
    metrics.audio_memory_bytes.set_function(lambda: held.memory.taken)
    metrics.audio_file_bytes.set_function(lambda: held.files.taken)


def _cache_keys(settings: Settings) -> CacheKeys:
    """Returns the keys of the audio cache. Reads weights that are new on this host in full, which takes seconds."""
    return CacheKeys(
        settings.engine_options().audio_label(),
        weights_fingerprint(settings),
        settings.storage.voices_dir,
        per_caller=settings.storage.cache_scope == "caller",
    )


def _jobs(
    settings: Settings,
    metrics: Metrics,
    stores: Stores,
    host_state: HostState,
    validator: RequestValidator,
    speech: SpeechService,
    held: HeldAudio,
    encoders: EncoderPool,
) -> JobServices:
    sample_rate = validator.card.sample_rate
    outage = OutageLog()
    executor = JobExecutor(stores.jobs, speech, validator, host_state, metrics, settings.jobs)
    service = JobService(
        stores.jobs,
        host_state,
        executor,
        settings.jobs,
        sample_rate=sample_rate,
        max_encoded_bytes=held.files.caller_limit,
        outage=outage,
    )
    streams = JobStreams(
        stores.jobs,
        speech,
        validator,
        held,
        encoders,
        metrics,
        sample_rate=sample_rate,
        pauses=settings.pauses,
        outage=outage,
    )
    return JobServices(validator, executor, service, streams)


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


def _links(access: AccessSettings, storage: StorageSettings, keys: KeyRing) -> Links:
    secret = access.link_secret
    return Links(keys, None if secret is None else secret.get_secret_value(), storage.data_dir / "link.secret")


def _degradation(storage: StorageSettings, stores: Stores) -> Degradation:
    folders = {"jobs, keys and daily limits": storage.data_dir, "audio cache": storage.cache_dir}
    return Degradation(folders, stores.redis)
