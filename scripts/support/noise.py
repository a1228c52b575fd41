"""How much CPU time the whole machine uses. Imports no numerical library."""

from __future__ import annotations

import psutil

NOISE_CORES = 0.15
"""Cores in use by other programs above which a report warns: a quiet machine's own services take less."""


def machine_cpu_seconds() -> float:
    """CPU seconds that all programs of the machine have used since it started."""
    times = psutil.cpu_times()
    # `user` and `nice` include guests; `steal` is the time that other virtual machines of the same hardware took.
    busy: float = times.user + times.nice + times.system + times.irq + times.softirq + times.steal
    return busy
