"""How quiet the machine is. Imports no numerical library."""

from __future__ import annotations

import psutil

NOISE_CORES = 0.15
"""More than the load generator and a quiet machine's own services take."""


def machine_seconds() -> float:
    """CPU seconds that the whole machine has worked so far."""
    times = psutil.cpu_times()
    # Guests are counted in user and nice already; steal is what others on the same hardware took.
    busy: float = times.user + times.nice + times.system + times.irq + times.softirq + times.steal
    return busy
