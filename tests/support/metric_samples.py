"""The samples of every metric that a balancer exposes: one event of each kind has been recorded."""

from __future__ import annotations

import os
from collections.abc import Mapping

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from balancer.fleet.fleet import WorkerPhase
from balancer.fleet.view import WorkerView
from balancer.metrics import Metrics
from balancer.operations.fleet_collector import FleetCollector
from balancer.operations.process_cpu import ProcessCpu
from balancer.scheduling.priority import Priority
from tests.support.worker_state import worker_state

SCRAPED = frozenset({"instance", "job"})
"""Labels that Prometheus adds."""


class _HostState:
    """The state of a host with a worker, as far as FleetCollector needs it."""

    depths = dict.fromkeys(Priority, 0)
    slots = free_slots = 1
    draining = False

    def workers(self) -> list[WorkerView]:
        state = worker_state(index=0, pid=os.getpid(), speed=1.0, retakes={"cut": 1}, flawed={"cut": 1})
        return [WorkerView(0, WorkerPhase.READY, None, state)]


def exposed_labels() -> Mapping[str, frozenset[str]]:
    """The names of the labels of every sample, by the sample's name, with those that Prometheus adds."""
    metrics = Metrics("hibari")
    metrics.registry.register(FleetCollector(_HostState(), ProcessCpu()))  # type: ignore[arg-type]
    metrics.record_queue_wait(1.0)
    metrics.record_attempt("ok", 1.0, 1.0)
    metrics.record_wasted_seconds("hedge", 1.0)
    metrics.record_worker_failure(0, "engine")
    metrics.record_cancellation("queued")
    metrics.record_refusal("queue_full")
    metrics.record_audio(1.0)
    metrics.record_cache_outcome("hit")
    metrics.record_stream_gap(1.0)
    metrics.record_stream_delay(1.0)
    metrics.record_job_attempt("done")
    metrics.set_job_counts({"queued": 1})
    metrics.record_webhook("delivered")
    metrics.record_response("/tts", 200, 1.0)
    metrics.record_connection_ended("idle")
    metrics.record_first_byte("/tts", 1.0)
    metrics.background_failures("jobs").inc()
    families = list(text_string_to_metric_families(generate_latest(metrics.registry).decode()))
    assert all(family.samples for family in families), "every metric needs an event here"
    return {sample.name: frozenset(sample.labels) | SCRAPED for family in families for sample in family.samples}
