"""What is left once all is quiet again: slots, sockets, file descriptors, memory, processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

from scripts.support.servers import Server

Found = TypeVar("Found")

TIMEOUT = 60.0
"""Seconds until every worker must be back, and until what was closed must be gone."""

LOOK_SECONDS = 0.05
SPARE_DESCRIPTORS = 4
"""So many more a worker may the balancer have open: a connection that is used again, one of a look at its state."""
SPARE_MEMORY = 0.05
"""By so much may the balancer have grown."""


@dataclass(frozen=True)
class Balance:
    """What the server has open at a moment without load."""

    descriptors: int
    """Of the balancer."""
    balancer_bytes: int
    """Its resident memory."""
    workers_bytes: int
    processes: int
    strays: tuple[str, ...]
    """Sockets in the run directory that belong to no worker."""


def take(server: Server, run_dir: Path) -> Balance:
    """The balance of a server that nobody asks anything. Raises ServerError where the balancer has gone."""
    balancers = server.processes_of("balancer")
    if len(balancers) != 1:
        raise server.failure(f"there are {len(balancers)} balancers")
    workers = server.processes_of("worker")
    known = {f"worker-{index}.sock" for index in range(len(workers))}
    return Balance(
        descriptors=balancers[0].num_fds(),
        balancer_bytes=balancers[0].memory_info().rss,
        workers_bytes=sum(worker.memory_info().rss for worker in workers),
        processes=len(server.processes()),
        strays=tuple(sorted(path.name for path in run_dir.glob("worker-*.sock*") if path.name not in known)),
    )


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at, and whether it is as it must be."""

    what: str
    value: str
    right: bool


def findings(server: Server, before: Balance, *, workers: int, run_dir: Path) -> list[Finding]:
    """All that must be as it was before the load. Raises ServerError."""
    with httpx.Client(base_url=server.url, timeout=TIMEOUT, trust_env=False) as http:
        report = _settled(lambda: http.get("/health").json(), lambda report: _whole(report, workers))
    most = before.descriptors + SPARE_DESCRIPTORS * workers
    after = _settled(
        lambda: take(server, run_dir), lambda now: now.descriptors <= most and now.processes == before.processes
    )
    ready = sum(worker["phase"] == "ready" for worker in report["workers"])
    held = sum(worker.get("in_flight", 0) for worker in report["workers"])
    growth = after.balancer_bytes / before.balancer_bytes - 1
    return [
        Finding("workers that are ready again", f"{ready} of {workers}", ready == workers),
        Finding("slots that are free again", f"{report['freeSlots']} of {report['slots']}", _free(report)),
        Finding("utterances that workers still hold", str(held), held == 0),
        Finding("utterances in line", str(report["queueDepth"]), report["queueDepth"] == 0),
        Finding(
            "file descriptors of the balancer, before and after",
            f"{before.descriptors}, {after.descriptors} (at most {most})",
            after.descriptors <= most,
        ),
        Finding("sockets of dead workers", ", ".join(after.strays) or "none", not after.strays),
        Finding(
            "processes, before and after",
            f"{before.processes}, {after.processes}",
            after.processes == before.processes,
        ),
        Finding(
            "memory of the balancer, before and after",
            f"{_mib(before.balancer_bytes)}, {_mib(after.balancer_bytes)} ({growth:+.1%})",
            growth <= SPARE_MEMORY,
        ),
        # They are other processes by now.
        Finding(
            "memory of the workers, before and after",
            f"{_mib(before.workers_bytes)}, {_mib(after.workers_bytes)}",
            True,
        ),
    ]


def _settled(look: Callable[[], Found], settled: Callable[[Found], bool]) -> Found:
    deadline = time.monotonic() + TIMEOUT
    while not settled(found := look()) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    return found


def _whole(report: dict[str, Any], workers: int) -> bool:
    listed = report["workers"]
    quiet = all(worker["phase"] == "ready" and not worker["in_flight"] for worker in listed)
    return _free(report) and len(listed) == workers and quiet


def _free(report: dict[str, Any]) -> bool:
    return bool(report["freeSlots"] == report["slots"])


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
