"""What must hold once all clients and faults have ended: no slot, socket, descriptor, memory or process is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

from scripts.support.check import Check
from scripts.support.servers import Server

Value = TypeVar("Value")

SETTLE_SECONDS = 180.0
"""All workers must be ready, and all that was closed must be gone, within this time. A worker hit while it starts
is killed after a minute, and starts again."""

POLL_INTERVAL_SECONDS = 0.05
SPARE_DESCRIPTORS = 4
"""File descriptors per worker that the balancer may have gained: connections that it reuses, and one to read states."""
MAX_MEMORY_GROWTH = 0.15
"""Share by which the balancer's memory may have grown past its peak before the faults. Without any loss it varies by up
to 15 MiB: the C library returns what was freed at times, and keeps it at others."""
ATTACKED_MEMORY_GROWTH = 0.5
"""The same where it was attacked: the allocator keeps what hundreds of connections and a flood of MP3 took."""


@dataclass(frozen=True)
class ResourceSnapshot:
    """Resources of the server at a moment without load."""

    descriptors: int
    """Open file descriptors of the balancer."""
    balancer_bytes: int
    """Resident memory of the balancer; before the faults, its peak."""
    workers_bytes: int
    """Resident memory of all workers."""
    processes: int
    stale_sockets: tuple[str, ...]
    """Sockets in the run directory that belong to no worker."""


def take_snapshot(server: Server, run_dir: Path) -> ResourceSnapshot:
    """The resources of a server without load. Raises ServerError if the balancer does not run."""
    balancers = server.processes_of("balancer")
    if len(balancers) != 1:
        raise server.failure(f"{len(balancers)} balancers are running")
    workers = server.processes_of("worker")
    own = {f"worker-{index}.sock" for index in range(len(workers))}
    return ResourceSnapshot(
        descriptors=balancers[0].num_fds(),
        balancer_bytes=balancers[0].memory_info().rss,
        workers_bytes=sum(worker.memory_info().rss for worker in workers),
        processes=len(server.processes()),
        stale_sockets=tuple(sorted(path.name for path in run_dir.glob("worker-*.sock*") if path.name not in own)),
    )


async def peak_memory(server: Server, load: Coroutine[None, None, None]) -> int:
    """The peak of the balancer's resident memory in bytes while it is under this load."""
    (balancer,) = server.processes_of("balancer")
    running = asyncio.ensure_future(load)
    peak = balancer.memory_info().rss
    while not running.done():
        await asyncio.wait([running], timeout=POLL_INTERVAL_SECONDS)
        peak = max(peak, balancer.memory_info().rss)
    await running
    return peak


def check_invariants(
    server: Server,
    before: ResourceSnapshot,
    *,
    workers: int,
    run_dir: Path,
    memory_growth: float = MAX_MEMORY_GROWTH,
) -> list[Check]:
    """Check all invariants, against the resources before the faults. Raises ServerError."""
    with httpx.Client(base_url=server.url, timeout=SETTLE_SECONDS, trust_env=False) as http:
        health = _settle(lambda: http.get("/health").json(), lambda health: _is_idle(health, workers))
    max_descriptors = before.descriptors + SPARE_DESCRIPTORS * workers
    after = _settle(
        lambda: take_snapshot(server, run_dir),
        lambda now: now.descriptors <= max_descriptors and now.processes == before.processes,
    )
    ready = sum(worker["phase"] == "ready" for worker in health["workers"])
    in_flight = sum(worker.get("in_flight", 0) for worker in health["workers"])
    growth = after.balancer_bytes / before.balancer_bytes - 1
    return [
        Check("ready workers", f"{ready} of {workers}", ready == workers),
        Check("free slots", f"{health['freeSlots']} of {health['slots']}", _all_slots_free(health)),
        Check("utterances in flight", str(in_flight), in_flight == 0),
        Check("queued utterances", str(health["queueDepth"]), health["queueDepth"] == 0),
        Check(
            "file descriptors of the balancer, before and after",
            f"{before.descriptors}, {after.descriptors} (at most {max_descriptors})",
            after.descriptors <= max_descriptors,
        ),
        Check("stale sockets", ", ".join(after.stale_sockets) or "none", not after.stale_sockets),
        Check(
            "processes, before and after",
            f"{before.processes}, {after.processes}",
            after.processes == before.processes,
        ),
        Check(
            "memory of the balancer, peak before and after",
            f"{_mib(before.balancer_bytes)}, {_mib(after.balancer_bytes)} ({growth:+.1%})",
            growth <= memory_growth,
        ),
        # No limit: the workers are other processes by now.
        Check(
            "memory of the workers, before and after",
            f"{_mib(before.workers_bytes)}, {_mib(after.workers_bytes)}",
            True,
        ),
    ]


def _settle(read: Callable[[], Value], is_settled: Callable[[Value], bool]) -> Value:
    """The first value that is settled, or the last one within SETTLE_SECONDS."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while not is_settled(value := read()) and time.monotonic() < deadline:
        time.sleep(POLL_INTERVAL_SECONDS)
    return value


def _is_idle(health: dict[str, Any], workers: int) -> bool:
    listed = health["workers"]
    all_ready = all(worker["phase"] == "ready" and not worker["in_flight"] for worker in listed)
    return _all_slots_free(health) and len(listed) == workers and all_ready


def _all_slots_free(health: dict[str, Any]) -> bool:
    return bool(health["freeSlots"] == health["slots"])


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
