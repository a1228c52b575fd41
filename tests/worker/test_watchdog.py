"""The watchdog in processes of their own, which it may end; and in a real worker whose engine hangs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from tests.support.harness import ROOT, TIMEOUT, wait_until
from tests.support.real_worker import running, synthesize, utterance, worker_options
from worker.contract import FrameKind


def run(code: str) -> subprocess.CompletedProcess[str]:
    lines = f"from worker.watchdog import ModelWatchdog\n{code}"
    return subprocess.run(
        [sys.executable, "-c", lines], cwd=ROOT, capture_output=True, text=True, check=False, timeout=TIMEOUT
    )


@pytest.mark.parametrize(
    "hang",
    [
        "import time; time.sleep(600)",
        "while True: pass",
        "import re; re.match('(a+)+$', 'a' * 60 + 'b')",
    ],
    ids=["a call that waits", "a loop", "native code that keeps the interpreter's lock"],
)
def test_a_process_without_progress_ends_and_shows_where(hang: str) -> None:
    done = run(f"ModelWatchdog(1).progressed()\n{hang}")
    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert 'File "<string>", line 3 in <module>' in done.stderr


def test_progress_and_rest_keep_it_alive() -> None:
    done = run(
        """if True:
        import time
        watchdog = ModelWatchdog(2)  # a busy machine may make the process stand still for a second
        end = time.monotonic() + 3
        while time.monotonic() < end:
            watchdog.progressed()
            time.sleep(0.01)
        watchdog.rest()
        time.sleep(2.5)
        watchdog.progressed()
        print("alive")"""
    )
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


def test_none_is_wanted() -> None:
    done = run("import time\nwatchdog = ModelWatchdog(0)\nwatchdog.progressed()\ntime.sleep(0.5)\nwatchdog.rest()")
    assert done.returncode == 0, done.stderr


async def test_a_worker_whose_engine_hangs_ends(run_dir: Path) -> None:
    options = replace(worker_options(run_dir), watchdog_seconds=2)
    code = f"""if True:
        import time
        from pathlib import Path
        from worker import server
        from worker.crash_history import CrashHistory
        from worker.options import WorkerOptions
        from tests.support.held_engine import HeldEngine

        class Hanging(HeldEngine):
            def synthesize(self, utterance, source, cancellation):
                if utterance.text == "hang":
                    time.sleep(600)
                yield from super().synthesize(utterance, source, cancellation)

        server.load = lambda _: Hanging()
        server.serve(WorkerOptions.from_argv({options.argv()!r}), CrashHistory(Path({str(run_dir)!r}), 0))
    """
    with running([sys.executable, "-c", code], options.socket) as worker:
        await asyncio.to_thread(worker.await_ready)
        async with worker.client() as client:
            assert (await synthesize(client, utterance("1")))[-1][0] is FrameKind.END
            with pytest.raises(httpx.RemoteProtocolError):
                await synthesize(client, utterance("hang"))
        await asyncio.to_thread(wait_until, lambda: worker.process.poll() is not None)
        assert worker.process.returncode == 1
