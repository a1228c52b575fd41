"""How much CPU processes use, as the kernel counts it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

LEAST_SECONDS = 0.5
"""Between two looks at a process: over less, the kernel's ticks are too coarse, and the last answer is given again."""


@dataclass(frozen=True)
class Usage:
    """What one process used."""

    seconds: float
    """CPU time since its start."""
    cores: float
    """Cores that it kept busy on average since the look before, at the first look since its start."""
    born: float
    """When it started, on the wall clock: the kernel gives a dead process's number away again."""


class CpuWatch:
    """Remembers its last look at each process. `clock` gives seconds that never go back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: dict[int, tuple[float, Usage]] = {}

    def look(self, pid: int) -> Usage | None:
        """The use of a process; None where there is none."""
        now = self._clock()
        at, before = self._last.get(pid, (0.0, None))
        if before is not None and now - at < LEAST_SECONDS:
            return before
        try:
            process = psutil.Process(pid)
            times = process.cpu_times()
            born = process.create_time()
        except psutil.NoSuchProcess:
            self._last.pop(pid, None)
            return None
        seconds = times.user + times.system
        if before is None or before.born != born:
            self._forget()  # somebody may have died for the new one
            cores = seconds / max(time.time() - born, LEAST_SECONDS)
        else:
            cores = (seconds - before.seconds) / (now - at)
        usage = Usage(seconds, cores, born)
        self._last[pid] = now, usage
        return usage

    def _forget(self) -> None:
        self._last = {pid: seen for pid, seen in self._last.items() if psutil.pid_exists(pid)}
