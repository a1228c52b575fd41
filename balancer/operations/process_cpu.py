"""CPU use of processes, as the kernel counts it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

MIN_INTERVAL_SECONDS = 0.5
"""Minimum time between two readings of a process, within which the previous one is returned again: the kernel's ticks
are too coarse for less."""


@dataclass(frozen=True)
class CpuUsage:
    """CPU use of one process."""

    seconds: float
    """CPU time since the process started."""
    cores: float
    """Average number of busy cores since the previous reading, in the first reading since the process started."""
    started_at: float
    """Start of the process in Unix time: tells it from a later process that the kernel gave the same id."""


class ProcessCpu:
    """Reads the CPU use of processes, and remembers the last reading of each. `clock` must be monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._readings: dict[int, tuple[float, CpuUsage]] = {}

    def usage(self, pid: int) -> CpuUsage | None:
        """Returns the CPU use of a process, or None if there is no such process."""
        now = self._clock()
        read_at, previous = self._readings.get(pid, (0.0, None))
        if previous is not None and now - read_at < MIN_INTERVAL_SECONDS:
            return previous
        try:
            process = psutil.Process(pid)
            times = process.cpu_times()
            started_at = process.create_time()
        except psutil.Error:
            self._readings.pop(pid, None)
            return None
        seconds = times.user + times.system
        if previous is None or previous.started_at != started_at:
            self._drop_ended()  # a new process may replace one that ended
            cores = seconds / max(time.time() - started_at, MIN_INTERVAL_SECONDS)
        else:
            cores = (seconds - previous.seconds) / (now - read_at)
        usage = CpuUsage(seconds, cores, started_at)
        self._readings[pid] = now, usage
        return usage

    def _drop_ended(self) -> None:
        self._readings = {pid: reading for pid, reading in self._readings.items() if psutil.pid_exists(pid)}
