"""What the dispatcher and its workers are like at the moment, as Prometheus gauges made when they are asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from balancer.dispatch.dispatcher import Dispatcher
from balancer.fleet.fleet import WorkerPhase
from balancer.fleet.view import WorkerView
from balancer.operations.process_cpu import CpuWatch


class FleetMetrics(Collector):
    """Collects from a dispatcher, and from the kernel what its workers' processes use."""

    def __init__(self, dispatcher: Dispatcher, cpu: CpuWatch) -> None:
        self._dispatcher = dispatcher
        self._cpu = cpu

    def collect(self) -> Iterator[Metric]:
        """Every gauge as of now."""
        dispatcher = self._dispatcher
        depth = GaugeMetricFamily("chorus_queue_depth", "Utterances in line.", labels=["priority"])
        for priority, number in dispatcher.depths.items():
            depth.add_metric([priority.value], number)
        yield depth
        yield GaugeMetricFamily("chorus_slots", "Slots of all workers that take utterances.", dispatcher.slots)
        yield GaugeMetricFamily("chorus_slots_free", "Slots that are free.", dispatcher.free_slots)
        yield GaugeMetricFamily("chorus_draining", "1 while the operator has the host drain.", int(dispatcher.draining))
        views = dispatcher.workers()
        yield from _phases(views)
        yield from self._workers(views)

    def _workers(self, views: list[WorkerView]) -> Iterator[Metric]:
        resident = _gauge("worker_resident_bytes", "Resident memory, shared memory included.")
        shared = _gauge("worker_shared_bytes", "Of the resident memory, what is mapped from files.")
        speed = _gauge("worker_speed", "Audio seconds made per second of work.")
        in_flight = _gauge("worker_in_flight", "Utterances under way.")
        share = _gauge("worker_cpu_ratio", "CPU use since the last look, in cores.")
        cpu = CounterMetricFamily("chorus_worker_cpu_seconds", "CPU time of the process.", labels=["worker"])
        done = CounterMetricFamily("chorus_worker_utterances", "Utterances spoken by the process.", labels=["worker"])
        for view in views:
            if view.state is None:
                continue
            worker, state = [str(view.index)], view.state
            resident.add_metric(worker, state.resident_bytes)
            shared.add_metric(worker, state.shared_bytes)
            in_flight.add_metric(worker, len(state.in_flight))
            done.add_metric(worker, state.done)
            if state.speed is not None:
                speed.add_metric(worker, state.speed)
            if (usage := self._cpu.look(state.pid)) is not None:
                cpu.add_metric(worker, usage.seconds)
                share.add_metric(worker, usage.cores)
        yield from (resident, shared, speed, in_flight, share, cpu, done)


def _gauge(name: str, what: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"chorus_{name}", what, labels=["worker"])


def _phases(views: list[WorkerView]) -> Iterator[Metric]:
    workers = GaugeMetricFamily("chorus_workers", "Workers by phase.", labels=["phase"])
    states = GaugeMetricFamily(
        "chorus_worker_state", "1 for the phase that a worker is in.", labels=["worker", "phase"]
    )
    counts = Counter(view.phase for view in views)
    for phase in WorkerPhase:
        workers.add_metric([phase.value], counts[phase])
        for view in views:
            states.add_metric([str(view.index), phase.value], int(view.phase is phase))
    yield from (workers, states)
