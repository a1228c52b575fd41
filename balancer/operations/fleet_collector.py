"""Prometheus metrics of the queue and the workers, which are read at the moment of each scrape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from balancer.dispatch.host_state import HostState
from balancer.fleet.fleet import WorkerPhase
from balancer.fleet.view import WorkerView
from balancer.operations.process_cpu import ProcessCpu
from worker.logs import dropped_lines


class FleetCollector(Collector):
    """Collects the state of the host, and the CPU time of the worker processes from the kernel."""

    def __init__(self, host_state: HostState, cpu: ProcessCpu) -> None:
        self._host_state = host_state
        self._cpu = cpu

    def collect(self) -> Iterator[Metric]:
        """Yields all metrics with their current values."""
        host_state = self._host_state
        depth = GaugeMetricFamily("chorus_queue_depth", "Queued utterances.", labels=["priority"])
        for priority, number in host_state.depths.items():
            depth.add_metric([priority.value], number)
        yield depth
        yield GaugeMetricFamily("chorus_slots", "Slots of all workers that accept utterances.", host_state.slots)
        yield GaugeMetricFamily("chorus_slots_free", "Free slots.", host_state.free_slots)
        yield GaugeMetricFamily(
            "chorus_draining", "1 while the host drains on the operator's command, else 0.", int(host_state.draining)
        )
        yield CounterMetricFamily(
            "chorus_log_lines_dropped", "Log lines of the balancer that nobody read in time.", value=dropped_lines()
        )
        views = host_state.workers()
        yield from _phases(views)
        yield from self._workers(views)

    def _workers(self, views: list[WorkerView]) -> Iterator[Metric]:
        resident = _gauge("worker_resident_bytes", "Resident memory in bytes, shared memory included.")
        shared = _gauge("worker_shared_bytes", "Part of the resident memory that is mapped from files, in bytes.")
        speed = _gauge("worker_speed", "Audio seconds per second of synthesis.")
        in_flight = _gauge("worker_in_flight", "Utterances in flight.")
        cpu_ratio = _gauge("worker_cpu_ratio", "CPU use since the previous scrape, in cores.")
        cpu = CounterMetricFamily("chorus_worker_cpu_seconds", "CPU time of the process in seconds.", labels=["worker"])
        done = CounterMetricFamily(
            "chorus_worker_utterances", "Utterances completed by the process.", labels=["worker"]
        )
        retakes = CounterMetricFamily(
            "chorus_worker_retakes", "Takes that the process discarded, by what was wrong.", labels=["worker", "flaw"]
        )
        flawed = CounterMetricFamily(
            "chorus_worker_flawed", "Utterances without a good take, by what is wrong.", labels=["worker", "flaw"]
        )
        for view in views:
            if view.state is None:
                continue
            worker, state = [str(view.index)], view.state
            resident.add_metric(worker, state.resident_bytes)
            shared.add_metric(worker, state.shared_bytes)
            in_flight.add_metric(worker, len(state.in_flight))
            done.add_metric(worker, state.done)
            for family, counts in ((retakes, state.retakes), (flawed, state.flawed)):
                for flaw, number in counts.items():
                    family.add_metric([*worker, flaw], number)
            if state.speed is not None:
                speed.add_metric(worker, state.speed)
            if (usage := self._cpu.usage(state.pid)) is not None:
                cpu.add_metric(worker, usage.seconds)
                cpu_ratio.add_metric(worker, usage.cores)
        yield from (resident, shared, speed, in_flight, cpu_ratio, cpu, done, retakes, flawed)


def _gauge(name: str, description: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"chorus_{name}", description, labels=["worker"])


def _phases(views: list[WorkerView]) -> Iterator[Metric]:
    workers = GaugeMetricFamily("chorus_workers", "Number of workers in each phase.", labels=["phase"])
    states = GaugeMetricFamily(
        "chorus_worker_state", "1 for the phase that the worker is in, 0 for the others.", labels=["worker", "phase"]
    )
    counts = Counter(view.phase for view in views)
    for phase in WorkerPhase:
        workers.add_metric([phase.value], counts[phase])
        for view in views:
            states.add_metric([str(view.index), phase.value], int(view.phase is phase))
    yield from (workers, states)
