"""Memory and descriptors of the balancer while it is attacked, sampled in a thread."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import psutil

from scripts.attacks.target import Target

INTERVAL_SECONDS = 0.02
SEARCH_INTERVAL_SECONDS = 0.25
"""Interval of looks for the balancer's process while there is none."""
GUARD_FACTOR = 2
"""At so many times its bound of memory the balancer is killed: some attacks would take the whole host's memory."""


@dataclass
class Peaks:
    """The largest values that were sampled."""

    memory: int = 0
    """Resident memory in bytes."""
    descriptors: int = 0
    guarded: bool = False
    """Whether the balancer was killed for its memory."""


class ResourceSampler:
    """Samples the balancer of a target from the beginning of the block to its end."""

    def __init__(self, target: Target) -> None:
        self.peaks = Peaks()
        self._target = target
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        balancer: psutil.Process | None = None
        while not self._ended.wait(INTERVAL_SECONDS if balancer else SEARCH_INTERVAL_SECONDS):
            with suppress(psutil.Error, OSError):
                if balancer is None or not balancer.is_running():
                    balancer = self._target.balancer()
                if balancer is not None:
                    self._sample(balancer)
                continue
            balancer = None

    def _sample(self, balancer: psutil.Process) -> None:
        memory = balancer.memory_info().rss
        self.peaks.memory = max(self.peaks.memory, memory)
        self.peaks.descriptors = max(self.peaks.descriptors, balancer.num_fds())
        if memory > GUARD_FACTOR * self._target.memory_bound:
            self.peaks.guarded = True
            balancer.kill()
