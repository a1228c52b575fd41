"""The table of `chorus status`, made from the answer of `/health`."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from balancer.cpu_lists import format_cores
from balancer.fleet.fleet import WorkerPhase

COLOURS = {
    WorkerPhase.STARTING: "yellow",
    WorkerPhase.WARMING: "yellow",
    WorkerPhase.READY: "green",
    WorkerPhase.BUSY: "cyan",
    WorkerPhase.DRAINING: "blue",
    WorkerPhase.FAILED: "red",
    WorkerPhase.GONE: "red",
}

_NOTABLE_SHARE = 64 * 2**20
"""Bytes of shared memory from which the table tells of it: below it are but the libraries' own files."""


def status_table(report: dict[str, Any]) -> Table:
    """One row a worker; the title tells whether the server can speak."""
    batch = report["queueDepths"]["batch"]
    title = f"{report['status']}, {report['queueDepth']} in line" + (f" ({batch} of them batch)" if batch else "")
    title += ", draining" if report["draining"] else ""
    if report["reason"]:
        title += f": {escape(report['reason'])}"
    listing = Table(title=title, title_justify="left")
    for heading in ("worker", "state", "pid", "CPUs", "threads", "CPU use", "memory", "done", "speed"):
        listing.add_column(heading, justify="left" if heading in ("state", "CPUs") else "right")
    for worker in report["workers"]:
        listing.add_row(*_row(worker))
    return listing


def _row(worker: dict[str, Any]) -> list[str]:
    phase = WorkerPhase(worker["phase"])
    state = f"[{COLOURS[phase]}]{phase}[/]" + (escape(f" ({worker['reason']})") if worker["reason"] else "")
    if "pid" not in worker:
        return [str(worker["index"]), state]
    return [
        str(worker["index"]),
        state,
        str(worker["pid"]),
        format_cores([worker["cores"]]),
        str(worker["threads"]),
        f"{worker['cpu_cores']:.0%}" if "cpu_cores" in worker else "",
        _memory(worker["resident_bytes"], worker["shared_bytes"]),
        str(worker["done"]),
        f"{worker['speed']:.1f}x" if worker["speed"] is not None else "",
    ]


def _memory(resident: int, shared: int) -> str:
    """The memory that is the worker's alone, and beside it what it shares with the others, if that is much."""
    own = f"{(resident - shared) / 2**20:.0f} MiB"
    return own if shared <= _NOTABLE_SHARE else f"{own} + {shared / 2**30:.1f} GiB shared"
