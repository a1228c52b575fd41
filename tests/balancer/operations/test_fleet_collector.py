"""The metrics of a made-up fleet; test_health.py has those of a running one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from balancer.fleet.fleet import WorkerPhase
from balancer.fleet.view import WorkerView
from balancer.operations.fleet_collector import FleetCollector
from balancer.operations.process_cpu import ProcessCpu
from balancer.scheduling.priority import Priority
from tests.support.clock import Clock
from tests.support.worker_state import worker_state

NO_PROCESS = 2**22 + 1
"""Higher than any process id of Linux."""


class HostState:
    """The part of a host's state that the collector uses."""

    slots, free_slots = 5, 2
    draining = False

    def __init__(self, *views: WorkerView) -> None:
        self.depths = {Priority.INTERACTIVE: 3, Priority.BATCH: 4}
        self._views = list(views)

    def workers(self) -> list[WorkerView]:
        return self._views


def view(index: int, phase: WorkerPhase = WorkerPhase.READY, **changed: object) -> WorkerView:
    fields: dict[str, object] = {
        "index": index,
        "pid": os.getpid(),
        "model": "small",
        "cores": (index,),
        "in_flight": ("a", "b"),
        "done": 7,
        "speed": 12.5,
        "resident_bytes": 300,
        "shared_bytes": 100,
        "retakes": {"cut": 3, "loop": 1},
        "flawed": {"cut": 1},
        "cpu_seconds": 1e6,
    }
    return WorkerView(index, phase, None, worker_state(**(fields | changed)))


def registry(host_state: HostState, clock: Callable[[], float] = time.monotonic) -> CollectorRegistry:
    made = CollectorRegistry()
    made.register(FleetCollector(host_state, ProcessCpu(clock)))  # type: ignore[arg-type]
    return made


def scrape(*views: WorkerView, host_state: HostState | None = None) -> dict[tuple[str, ...], float]:
    """All samples by name and label values, in the order of the label names."""
    text = generate_latest(registry(host_state or HostState(*views))).decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def workers_with(samples: dict[tuple[str, ...], float], name: str) -> Sequence[str]:
    return sorted(labels[1] for labels in samples if labels[0] == name)


def test_queue_depth_and_slots() -> None:
    samples = scrape()
    assert samples["chorus_queue_depth", "interactive"] == 3
    assert samples["chorus_queue_depth", "batch"] == 4
    assert (samples["chorus_slots",], samples["chorus_slots_free",]) == (5, 2)


@pytest.mark.parametrize("draining", [False, True])
def test_an_operators_drain(draining: bool) -> None:
    host_state = HostState()
    host_state.draining = draining
    assert scrape(host_state=host_state)["chorus_draining",] == draining


@pytest.mark.parametrize("phase", WorkerPhase)
def test_a_worker_is_in_one_phase(phase: WorkerPhase) -> None:
    samples = scrape(view(0, phase), view(1, phase))
    for other in WorkerPhase:
        assert samples["chorus_workers", other] == (2 if other is phase else 0)
        assert samples["chorus_worker_state", other, "1"] == (1 if other is phase else 0)


def test_what_a_worker_reports() -> None:
    samples = scrape(view(3))
    assert samples["chorus_worker_resident_bytes", "3"] == 300
    assert samples["chorus_worker_shared_bytes", "3"] == 100
    assert samples["chorus_worker_in_flight", "3"] == 2
    assert samples["chorus_worker_utterances_total", "3"] == 7
    assert samples["chorus_worker_speed", "3"] == 12.5
    assert samples["chorus_worker_retakes_total", "cut", "3"] == 3
    assert samples["chorus_worker_retakes_total", "loop", "3"] == 1
    assert samples["chorus_worker_flawed_total", "cut", "3"] == 1


def test_cpu_is_what_the_kernel_counts_not_what_the_worker_reports() -> None:
    samples = scrape(view(0))
    assert samples["chorus_worker_cpu_seconds_total", "0"] == pytest.approx(sum(os.times()[:2]), abs=0.5)
    assert samples["chorus_worker_cpu_ratio", "0"] > 0


def test_a_process_that_has_ended_has_no_cpu_use() -> None:
    samples = scrape(view(0), view(1, pid=NO_PROCESS))
    assert workers_with(samples, "chorus_worker_cpu_seconds_total") == ["0"]
    assert workers_with(samples, "chorus_worker_cpu_ratio") == ["0"]
    assert workers_with(samples, "chorus_worker_resident_bytes") == ["0", "1"]


def test_a_worker_that_never_answered_has_a_phase_and_nothing_else() -> None:
    samples = scrape(WorkerView(0, WorkerPhase.GONE, "connection refused", None))
    assert samples["chorus_worker_state", "gone", "0"] == 1
    assert {labels[0] for labels in samples if "0" in labels[1:]} == {"chorus_worker_state"}


def test_a_worker_without_utterances_has_no_speed() -> None:
    assert workers_with(scrape(view(0), view(1, speed=None)), "chorus_worker_speed") == ["0"]


def test_concurrent_scrapes_do_not_mix() -> None:
    registered = registry(HostState(view(0), view(1)), Clock())
    expected = generate_latest(registered)  # by this clock, the next scrapes are within MIN_INTERVAL_SECONDS
    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(lambda _: generate_latest(registered), range(20))) == {expected}
