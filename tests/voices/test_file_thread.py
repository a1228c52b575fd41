"""A thread for file work: its order, its results, and what a call that hangs holds up."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from tests.support.harness import ROOT, TIMEOUT
from voices.file_thread import FileThread


async def test_calls_run_in_order_in_one_thread_and_return_their_results() -> None:
    files = FileThread("files")
    ran: list[int] = []

    def call(number: int) -> int:
        ran.append(number)
        return threading.get_ident()

    threads = await asyncio.gather(*[files.run(call, number) for number in range(5)])
    assert ran == [0, 1, 2, 3, 4]
    assert len(set(threads)) == 1
    assert threading.get_ident() not in threads


async def test_an_error_is_raised_where_the_result_is_awaited() -> None:
    files = FileThread("files")
    with pytest.raises(ZeroDivisionError):
        await files.run(lambda: 1 // 0)
    assert await files.run(lambda: 3) == 3


async def test_a_call_that_was_cancelled_while_it_waited_is_left_out() -> None:
    files, held, ran = FileThread("files"), threading.Event(), threading.Event()
    first = asyncio.ensure_future(files.run(held.wait))
    second = asyncio.ensure_future(files.run(ran.set))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second  # the cancellation reaches the thread's queue a turn of the loop later
    held.set()
    await first
    await files.run(lambda: None)
    assert not ran.is_set()


def test_the_periodic_call_goes_on_after_an_error(caplog: pytest.LogCaptureFixture) -> None:
    calls = threading.Semaphore(0)

    failures = [OSError("once"), OSError("twice")]

    def fail() -> None:
        calls.release()
        if failures:
            raise failures.pop()

    FileThread("files", fail, interval=0.01).start()
    assert all(calls.acquire(timeout=TIMEOUT) for _ in range(3))
    assert caplog.text.count("the periodic call failed") == 2


def test_a_call_that_hangs_does_not_delay_the_exit() -> None:
    code = "import time; from voices.file_thread import FileThread; FileThread('f').submit(time.sleep, 600)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=TIMEOUT)
