"""The gauges of a fleet that is described by hand; `test_ops` has them from a running one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from balancer.fleet.fleet import WorkerPhase
from balancer.fleet.view import WorkerView
from balancer.operations.fleet_collector import FleetCollector
from balancer.operations.process_cpu import ProcessCpu
from balancer.scheduling.priority import Priority
from worker.contract import Phase, WorkerState

NO_PROCESS = 2**22 + 1
"""Above the highest process id that Linux gives."""


class Dispatcher:
    """As much of a dispatcher as the metrics ask."""

    slots, free_slots = 5, 2
    draining = False

    def __init__(self, *views: WorkerView) -> None:
        self.depths = {Priority.INTERACTIVE: 3, Priority.BATCH: 4}
        self._views = list(views)

    def workers(self) -> list[WorkerView]:
        return self._views


def view(index: int, phase: WorkerPhase = WorkerPhase.READY, **told: object) -> WorkerView:
    fields: dict[str, object] = {
        "index": index,
        "pid": os.getpid(),
        "phase": Phase.READY,
        "engine": "hibari",
        "model": "small",
        "sample_rate": 24_000,
        "cores": (index,),
        "threads": 1,
        "slots": 1,
        "in_flight": ("a", "b"),
        "done": 7,
        "progress": 0,
        "speed": 12.5,
        "voices_prepared": (),
        "resident_bytes": 300,
        "shared_bytes": 100,
        "cpu_seconds": 1e6,
        "started_at": 0.0,
    }
    return WorkerView(index, phase, None, WorkerState.model_validate(fields | told))


def registry(dispatcher: Dispatcher) -> CollectorRegistry:
    made = CollectorRegistry()
    made.register(FleetCollector(dispatcher, ProcessCpu()))  # type: ignore[arg-type]
    return made


def scrape(*views: WorkerView, dispatcher: Dispatcher | None = None) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels, those in the order of the labels' names."""
    text = generate_latest(registry(dispatcher or Dispatcher(*views))).decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def workers_with(found: dict[tuple[str, ...], float], name: str) -> Sequence[str]:
    return sorted(labels[1] for labels in found if labels[0] == name)


def test_the_line_and_the_slots() -> None:
    found = scrape()
    assert found["chorus_queue_depth", "interactive"] == 3
    assert found["chorus_queue_depth", "batch"] == 4
    assert (found["chorus_slots",], found["chorus_slots_free",]) == (5, 2)


@pytest.mark.parametrize("draining", [False, True])
def test_an_operators_drain(draining: bool) -> None:
    dispatcher = Dispatcher()
    dispatcher.draining = draining
    assert scrape(dispatcher=dispatcher)["chorus_draining",] == draining


@pytest.mark.parametrize("phase", WorkerPhase)
def test_a_worker_is_in_one_phase(phase: WorkerPhase) -> None:
    found = scrape(view(0, phase), view(1, phase))
    for other in WorkerPhase:
        assert found["chorus_workers", other] == (2 if other is phase else 0)
        assert found["chorus_worker_state", other, "1"] == (1 if other is phase else 0)


def test_what_a_worker_reports() -> None:
    found = scrape(view(3))
    assert found["chorus_worker_resident_bytes", "3"] == 300
    assert found["chorus_worker_shared_bytes", "3"] == 100
    assert found["chorus_worker_in_flight", "3"] == 2
    assert found["chorus_worker_utterances_total", "3"] == 7
    assert found["chorus_worker_speed", "3"] == 12.5


def test_cpu_is_what_the_kernel_counts_not_what_the_worker_reports() -> None:
    found = scrape(view(0))
    assert found["chorus_worker_cpu_seconds_total", "0"] == pytest.approx(sum(os.times()[:2]), abs=0.5)
    assert found["chorus_worker_cpu_ratio", "0"] > 0


def test_a_process_that_is_gone_has_no_cpu() -> None:
    found = scrape(view(0), view(1, pid=NO_PROCESS))
    assert workers_with(found, "chorus_worker_cpu_seconds_total") == ["0"]
    assert workers_with(found, "chorus_worker_cpu_ratio") == ["0"]
    assert workers_with(found, "chorus_worker_resident_bytes") == ["0", "1"]


def test_a_worker_that_never_answered_has_a_phase_and_nothing_else() -> None:
    found = scrape(WorkerView(0, WorkerPhase.GONE, "connection refused", None))
    assert found["chorus_worker_state", "gone", "0"] == 1
    assert {labels[0] for labels in found if "0" in labels[1:]} == {"chorus_worker_state"}


def test_a_worker_that_has_not_spoken_has_no_speed() -> None:
    assert workers_with(scrape(view(0), view(1, speed=None)), "chorus_worker_speed") == ["0"]


def test_scrapes_at_once_do_not_mix() -> None:
    registered = registry(Dispatcher(view(0), view(1)))
    expected = generate_latest(registered)  # what follows is within the shortest time between two looks
    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(lambda _: generate_latest(registered), range(20))) == {expected}
