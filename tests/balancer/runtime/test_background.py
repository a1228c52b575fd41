from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from balancer.metrics import Metrics
from balancer.runtime.background import EXIT_CODE, Background, BackgroundTask
from tests.support.harness import ROOT, TIMEOUT


async def test_a_task_that_fails_is_run_again_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics("hibari")
    runs = 0
    well = asyncio.Event()

    async def fails_twice() -> None:
        nonlocal runs
        runs += 1
        if runs < 3:
            raise OSError("no such thing")
        well.set()

    background = Background(metrics.background_failures, min_pause=0.02)
    async with background.running([BackgroundTask("some task", fails_twice)]):
        async with asyncio.timeout(TIMEOUT):
            await well.wait()
    assert b'chorus_background_failures_total{task="some task"} 2.0' in metrics.exposition()
    assert [record.exc_info is not None for record in caplog.records] == [True, True]
    assert [record.message.rpartition(" in ")[2] for record in caplog.records] == ["0.02 s", "0.04 s"], (
        "the pause grows"
    )


async def test_the_failure_of_one_leaves_the_others_alone() -> None:
    ended: list[str] = []

    async def fails() -> None:
        raise ValueError

    async def runs() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    background = Background(Metrics("hibari").background_failures)
    async with background.running([BackgroundTask("fails", fails), BackgroundTask("runs", runs)]):
        await asyncio.sleep(0)
        assert ended == []
        await background.stop("runs")
        assert ended == ["cancelled"]
        await background.stop("runs")


UNSAFE = """
import asyncio
from balancer.runtime.background import Background, BackgroundTask, OnFailure
from balancer.metrics import Metrics
from worker.logs import configure

async def fails():
    raise OSError("torn")

async def main():
    background = Background(Metrics("hibari").background_failures)
    async with background.running([BackgroundTask("fleet", fails, OnFailure.END_PROCESS)]):
        await asyncio.sleep(600)

configure("balancer", level="info", log_format="text")
asyncio.run(main())
"""


def test_where_it_cannot_be_run_again_the_process_ends_at_once() -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNSAFE], cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert done.returncode == EXIT_CODE
    assert "CRITICAL the balancer ends at once: its task fleet failed" in done.stderr
    assert "OSError: torn" in done.stderr
