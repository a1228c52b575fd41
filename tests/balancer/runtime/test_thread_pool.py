from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from balancer.runtime.thread_pool import ITEMS_AT_A_TIME, PoolFullError, ThreadPool, with_rests
from tests.support.harness import ROOT, TIMEOUT, environment

HANGING = """
import asyncio, threading
from balancer.runtime.thread_pool import ThreadPool
async def main():
    pool = ThreadPool("hanging", 1)
    task = asyncio.create_task(pool.run(threading.Event().wait))
    await asyncio.sleep(0)
    pool.close()
asyncio.run(main())
"""


async def test_a_call_returns_its_result_or_raises_its_error() -> None:
    pool = ThreadPool("test", 2)
    assert await pool.run(lambda: 1 + 1) == 2
    with pytest.raises(ZeroDivisionError):
        await pool.run(lambda: 1 // 0)
    assert await pool.run(lambda: threading.current_thread().name) in ("test-0", "test-1")
    pool.close()


async def test_a_full_pool_refuses_at_once_and_delays_no_other() -> None:
    full, other = ThreadPool("full", 1, max_waiting=2), ThreadPool("other", 1)
    go_on, begun = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        go_on.wait()

    running = asyncio.create_task(full.run(hang))
    await other.run(begun.wait)
    waiting = [asyncio.create_task(full.run(hang)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(PoolFullError, match="full"):
        await full.run(hang)
    waiting.append(asyncio.create_task(full.run(hang, begun=True)))
    await asyncio.sleep(0)
    assert await other.run(lambda: "at once") == "at once"
    go_on.set()
    await asyncio.gather(running, *waiting)
    assert await full.run(lambda: "again") == "again"


async def test_work_that_has_not_begun_can_be_taken_back() -> None:
    pool = ThreadPool("test", 1)
    go_on = threading.Event()
    first = asyncio.create_task(pool.run(go_on.wait))
    done: list[str] = []
    second = asyncio.create_task(pool.run(lambda: done.append("second")))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.sleep(0)
    go_on.set()
    await first
    await pool.run(lambda: done.append("third"))
    assert done == ["third"]


def test_work_on_thousands_rests_and_on_few_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    rests: list[float] = []
    monkeypatch.setattr("balancer.runtime.thread_pool.time.sleep", rests.append)
    assert list(with_rests(range(ITEMS_AT_A_TIME - 1))) == list(range(ITEMS_AT_A_TIME - 1))
    assert rests == []
    assert len(list(with_rests(range(10 * ITEMS_AT_A_TIME)))) == 10 * ITEMS_AT_A_TIME
    assert len(rests) == 10


def test_a_process_ends_while_a_thread_hangs() -> None:
    subprocess.run([sys.executable, "-c", HANGING], cwd=ROOT, env=environment(), check=True, timeout=TIMEOUT)


async def test_a_closed_pool_refuses() -> None:
    pool = ThreadPool("test", 1)
    pool.close()
    with pytest.raises(PoolFullError, match="closed"):
        await pool.run(lambda: None)
