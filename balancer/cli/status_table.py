"""The table of `chorus status`, made from the response of `/health`."""

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

_MIN_SHARED_BYTES = 64 * 2**20
"""Shared memory up to this size, which is that of the libraries' files, is not shown."""


def status_table(report: dict[str, Any]) -> Table:
    """Returns a table with one row per worker; its title says whether the server can serve requests."""
    batch = report["queueDepths"]["batch"]
    title = f"{report['status']}, {report['queueDepth']} queued" + (f" ({batch} of them batch)" if batch else "")
    title += ", draining" if report["draining"] else ""
    if report["reason"]:
        title += f": {escape(report['reason'])}"
    table = Table(title=title, title_justify="left")
    for heading in ("worker", "state", "pid", "CPUs", "threads", "CPU use", "memory", "done", "speed", "now"):
        table.add_column(heading, justify="left" if heading in ("state", "CPUs", "now") else "right")
    for worker in report["workers"]:
        table.add_row(*_row(worker))
    if report["warnings"]:
        table.caption = escape("\n".join(f"! {warning['message']}" for warning in report["warnings"]))
        table.caption_justify, table.caption_style = "left", "yellow"
    return table


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
        _now(worker["running"]),
    ]


def _now(running: list[dict[str, Any]]) -> str:
    """What the worker speaks: the oldest of its utterances, and how many others there are."""
    if not running:
        return ""
    first, others = running[0], len(running) - 1
    words = f"{first['voice']}, {first['characters']} characters, {first['seconds']:.1f} s"
    return escape(words) + (f" (+{others})" if others else "")


def _memory(resident: int, shared: int) -> str:
    """The worker's own memory and, unless it is small, the memory that it shares with the other workers."""
    own = f"{(resident - shared) / 2**20:.0f} MiB"
    return own if shared <= _MIN_SHARED_BYTES else f"{own} + {shared / 2**30:.1f} GiB shared"
