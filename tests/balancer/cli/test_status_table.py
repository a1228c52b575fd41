from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pytest
from rich.console import Console

from balancer.cli.status_table import COLOURS, status_table
from balancer.fleet.fleet import WorkerPhase

WORKER: dict[str, Any] = {
    "index": 0,
    "phase": "ready",
    "reason": None,
    "pid": 4711,
    "cores": [0, 1, 2, 8],
    "threads": 2,
    "cpu_cores": 0.97,
    "resident_bytes": 384 * 2**20,
    "shared_bytes": 64 * 2**20,
    "done": 12,
    "speed": 61.234,
    "running": [],
}


def lines(
    *workers: dict[str, Any],
    reason: str | None = None,
    batch: int = 0,
    draining: bool = False,
    warnings: Sequence[str] = (),
    width: int = 200,
) -> list[str]:
    report = {
        "status": "healthy" if reason is None else "unhealthy",
        "reason": reason,
        "queueDepth": 3,
        "queueDepths": {"interactive": 3 - batch, "batch": batch},
        "draining": draining,
        "warnings": [{"code": "x", "message": message} for message in warnings],
        "workers": workers,
    }
    output = io.StringIO()
    Console(file=output, width=width).print(status_table(report))
    return output.getvalue().splitlines()


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│")]


def test_the_row_of_a_worker() -> None:
    title, _, headings, _, row, _ = lines(WORKER)
    assert title.strip() == "healthy, 3 queued"
    assert dict(zip(cells(headings), cells(row), strict=True)) == {
        "worker": "0",
        "state": "ready",
        "pid": "4711",
        "CPUs": "0-2,8",
        "threads": "2",
        "CPU use": "97%",
        "memory": "320 MiB",
        "done": "12",
        "speed": "61.2x",
        "now": "",
    }


@pytest.mark.parametrize(
    ("resident", "shared", "memory"),
    [
        (384 * 2**20, 0, "384 MiB"),
        (384 * 2**20, 64 * 2**20, "320 MiB"),
        (384 * 2**20, 64 * 2**20 + 1, "320 MiB + 0.1 GiB shared"),
        (4608 * 2**20, 3000 * 2**20, "1608 MiB + 2.9 GiB shared"),
    ],
)
def test_own_memory_is_shown_and_shared_memory_if_it_is_large(resident: int, shared: int, memory: str) -> None:
    row = cells(lines(WORKER | {"resident_bytes": resident, "shared_bytes": shared})[4])
    assert row[6] == memory


def test_a_worker_without_utterances_has_no_speed() -> None:
    assert cells(lines(WORKER | {"speed": None})[4])[-2] == ""


def test_a_worker_that_is_gone_has_a_row_with_the_reason() -> None:
    row = cells(lines({"index": 5, "phase": "gone", "reason": "connection refused"})[4])
    assert row == ["5", "gone (connection refused)", "", "", "", "", "", "", "", ""]


def test_the_title_says_why_no_worker_is_ready() -> None:
    assert lines(WORKER, reason="the workers are starting")[0].strip() == (
        "unhealthy, 3 queued: the workers are starting"
    )


def test_the_title_shows_batch_work_and_draining() -> None:
    assert lines(WORKER, batch=2, draining=True)[0].strip() == "healthy, 3 queued (2 of them batch), draining"


def test_a_process_that_has_just_ended_has_no_cpu_use() -> None:
    alone = {name: value for name, value in WORKER.items() if name != "cpu_cores"}
    assert cells(lines(alone)[4])[5] == ""


@pytest.mark.parametrize("reason", ["[/] no file [/srv/model]", "[red]warm[/red]", "[bold]", "a\\[b]"])
def test_a_reason_is_shown_without_markup(reason: str) -> None:
    output = "\n".join(lines({"index": 0, "phase": "failed", "reason": reason}, reason=reason))
    assert f": {reason}" in output
    assert f"failed ({reason})" in output


@pytest.mark.parametrize("phase", WorkerPhase)
def test_every_phase_has_a_colour(phase: WorkerPhase) -> None:
    assert phase in COLOURS
    assert phase.value in lines(WORKER | {"phase": phase.value})[4]


def test_what_a_worker_speaks() -> None:
    running = {"voice": "[b]ada", "characters": 120, "priority": "batch", "seconds": 1.26, "expected_seconds": 3.0}
    row = lines(WORKER | {"running": [running]})[4]
    assert cells(row)[-1] == "[b]ada, 120 characters, 1.3 s"
    row = lines(WORKER | {"running": [running, running, running]})[4]
    assert cells(row)[-1] == "[b]ada, 120 characters, 1.3 s (+2)"


def test_warnings_stand_below() -> None:
    below = [line.strip() for line in lines(WORKER, warnings=["queue wait [above]", "jobs failed"])[6:]]
    assert below == ["! queue wait [above]", "! jobs failed"]
