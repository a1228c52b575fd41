"""Restarts the workers that fail where others succeed, as the outlier detector judges them."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from balancer.dispatch.attempt import Attempt
from balancer.dispatch.outlier_detection import OutlierDetector
from balancer.fleet.fleet import Fleet, WorkerProcess
from balancer.metrics import Metrics
from balancer.scheduling.scheduler import Scheduler

log = logging.getLogger(__name__)


class WorkerEjector:
    """Judges the workers of one fleet by their attempts."""

    def __init__(self, fleet: Fleet, scheduler: Scheduler, metrics: Metrics, detector: OutlierDetector) -> None:
        self._fleet = fleet
        self._scheduler = scheduler
        self._metrics = metrics
        self._detector = detector

    def watch(self, process: WorkerProcess) -> None:
        """Judge a process that is ready from now on; those before it in its place are forgotten."""
        self._detector.forget_predecessors(process.name)
        process.client.on_unrequested = partial(self._record_unrequested, process)

    def record_failure(self, attempt: Attempt, kind: str) -> None:
        """Record that an attempt failed for a reason that its worker may be at fault for: `kind` as in the metric."""
        process = attempt.process
        self._metrics.record_worker_failure(process.index, kind)
        if process.name not in attempt.failed_on:
            attempt.failed_on.append(process.name)
            self._detector.record_failure(process.name, attempt.utterance.text)
            self._eject_if_outlier(process)

    def record_success(self, attempt: Attempt) -> None:
        """Record that an attempt succeeded, which tells against the workers that failed on the utterance before."""
        self._detector.record_success(attempt.process.name, attempt.failed_on, self._now())
        for name in attempt.failed_on:
            if (process := self._fleet.process(name)) is not None:
                self._eject_if_outlier(process)

    def _record_unrequested(self, process: WorkerProcess) -> None:
        log.warning("worker %d (pid %d) sent an answer that no request asked for", process.index, process.state.pid)
        self._metrics.record_worker_failure(process.index, "contract")
        self._detector.record_violation(process.name, self._now())
        self._eject_if_outlier(process)

    def _eject_if_outlier(self, process: WorkerProcess) -> None:
        if process.retired:
            return
        now, others = self._now(), self._scheduler.open_besides({process.name})
        known = len(self._fleet.workers)
        reason = self._detector.reason_to_eject(process.name, now, others_serving=others, workers=known)
        if reason is not None:
            self._detector.ejected(process.name, now, others_serving=others)
            self._metrics.workers_ejected.inc()
            self._scheduler.close(process.name)
            self._fleet.eject(process, reason)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
