"""Finds the workers that fail where others succeed, to be restarted. Pure: every call is given `now`.

As in Envoy's outlier detection, a worker is judged by the outcomes of its latest attempts. An attempt that failed says
little by itself, since the text may be at fault; so the failure counts once another attempt at the same utterance has
succeeded. An utterance that failed on two workers is its own fault and counts against neither, except that a worker
without any success for long is restarted, whoever is at fault. Workers are restarted only while enough others serve.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

WINDOW = 20
"""Number of latest attempts by which a worker is judged."""

WINDOW_SECONDS = 300.0
"""Age at which an outcome no longer counts."""

MAX_FAILURE_SHARE = 0.5
"""Share of failures in the window from which a worker is restarted."""

MAX_BARREN_TEXTS = 20
"""Texts that failed without a success in between after which a worker is restarted, even if every one was at fault."""

MAX_BARREN_TEXTS_ALONE = 5
"""The same for a worker without others, whose failures no other can contradict."""

ALONE_PAUSE_SECONDS = 60.0
"""Minimum time between two restarts of a worker without others: texts that fail must not keep a host from serving."""

MIN_SERVING_SHARE = 0.5
"""Share of all workers that must serve besides the one that is restarted, if there are others."""


@dataclass
class _Record:
    outcomes: deque[tuple[float, bool]] = field(default_factory=lambda: deque(maxlen=WINDOW))
    """Time and success of the latest attempts, without those whose failure is the utterance's fault."""
    barren: set[int] = field(default_factory=set)
    """Hashes of the different texts that failed since the last success: a client may send one text again and again."""

    def failures(self, now: float) -> tuple[int, int]:
        """Number of failures and of attempts in the window."""
        while self.outcomes and now - self.outcomes[0][0] > WINDOW_SECONDS:
            self.outcomes.popleft()
        return sum(not success for _, success in self.outcomes), len(self.outcomes)


class OutlierDetector:
    """The outcomes of one fleet's workers, which are named as in WorkerProcess.name.

    `min_failures` is the number of failures from which a worker is an outlier; 0: never.
    """

    def __init__(self, min_failures: int) -> None:
        self._min_failures = min_failures
        self._records: dict[str, _Record] = {}
        self._last_ejection_alone: float | None = None

    def record_success(self, worker: str, failed: Iterable[str], now: float) -> None:
        """Record that a worker completed an utterance on which those in `failed` had failed before."""
        record = self._record(worker)
        record.outcomes.append((now, True))
        record.barren.clear()
        for name in failed:
            self._record(name).outcomes.append((now, False))

    def record_failure(self, worker: str, text: str) -> None:
        """Record that an attempt at a text failed on a worker, whoever is at fault."""
        barren = self._record(worker).barren
        if len(barren) < MAX_BARREN_TEXTS:
            barren.add(hash(text))

    def record_violation(self, worker: str, now: float) -> None:
        """Record an answer that no request asked for, which no utterance can be at fault for."""
        self._record(worker).outcomes.append((now, False))

    def reason_to_eject(self, worker: str, now: float, *, others_serving: int, workers: int) -> str | None:
        """Why a worker is to be restarted; None if it is not, or not yet.

        `others_serving` is the number of other workers that take utterances, `workers` that of all.
        """
        if not self._min_failures or worker not in self._records:
            return None
        alone = others_serving == 0
        if alone and self._last_ejection_alone is not None and now - self._last_ejection_alone < ALONE_PAUSE_SECONDS:
            return None
        if not alone and others_serving < MIN_SERVING_SHARE * (workers - 1):
            return None
        record = self._records[worker]
        failures, attempts = record.failures(now)
        if failures >= self._min_failures and failures >= MAX_FAILURE_SHARE * attempts:
            return f"{failures} of its latest {attempts} attempts failed, and others did not"
        if len(record.barren) >= (MAX_BARREN_TEXTS_ALONE if alone else MAX_BARREN_TEXTS):
            return f"{len(record.barren)} different texts failed on it since its last success"
        return None

    def ejected(self, worker: str, now: float, *, others_serving: int) -> None:
        """Forget the outcomes of a worker that is restarted."""
        self._records.pop(worker, None)
        if others_serving == 0:
            self._last_ejection_alone = now

    def forget_predecessors(self, worker: str) -> None:
        """Forget the earlier processes of that worker, whose names have the same index."""
        index = f"{worker.partition(':')[0]}:"
        for name in [name for name in self._records if name.startswith(index) and name != worker]:
            del self._records[name]

    def _record(self, worker: str) -> _Record:
        if (record := self._records.get(worker)) is None:
            record = self._records[worker] = _Record()
        return record
