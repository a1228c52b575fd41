"""What a worker remembers of its last starts: as files, and as real processes that die while they load."""

from __future__ import annotations

import logging
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.harness import ROOT, TIMEOUT, environment, wait_until
from tests.support.real_worker import start_worker, worker_options
from worker.contract import Phase
from worker.crash_history import MAX_WAIT_SECONDS, NO_CRASHES, Crashes, CrashHistory


def crash(folder: Path, *said: str, index: int = 0) -> Crashes:
    """What a process finds that logs these lines and dies while it loads."""
    history = CrashHistory(folder, index)
    found = history.read()
    handler = history.logging()
    history.begin()
    for line in said:
        handler.handle(logging.LogRecord("x", logging.ERROR, __file__, 1, line, None, None))
    handler.close()
    return found


def test_the_first_start_has_no_past(tmp_path: Path) -> None:
    assert CrashHistory(tmp_path, 0).read() == NO_CRASHES
    assert NO_CRASHES.wait == 0


def test_each_crash_doubles_the_wait_but_the_first() -> None:
    assert [Crashes(starts).wait for starts in (0, 1, 2, 3, 4)] == [0, 0, 2, 4, 8]
    assert Crashes(1000).wait == MAX_WAIT_SECONDS


def test_crashes_are_counted_and_the_last_lines_kept(tmp_path: Path) -> None:
    assert crash(tmp_path, "first") == NO_CRASHES
    assert crash(tmp_path, *map(str, range(9))) == Crashes(1, "ERROR first")
    found = CrashHistory(tmp_path, 0).read()
    assert found == Crashes(2, "ERROR 4 | ERROR 5 | ERROR 6 | ERROR 7 | ERROR 8")
    assert found.reason == (
        "crashed at each of its last 2 starts, tries again after 2 s; the last lines of its log: "
        "ERROR 4 | ERROR 5 | ERROR 6 | ERROR 7 | ERROR 8"
    )


def test_a_start_that_logged_nothing_does_not_show_the_lines_of_one_before(tmp_path: Path) -> None:
    crash(tmp_path, "long ago")
    crash(tmp_path)
    assert CrashHistory(tmp_path, 0).read() == Crashes(2)
    assert "it logged nothing" in Crashes(2).reason


def test_workers_have_pasts_of_their_own(tmp_path: Path) -> None:
    crash(tmp_path, index=1)
    assert CrashHistory(tmp_path, 0).read() == NO_CRASHES


def test_a_start_that_got_ready_ends_the_row(tmp_path: Path) -> None:
    crash(tmp_path)
    history = CrashHistory(tmp_path, 0)
    history.read()
    history.begin()
    history.settle()
    assert CrashHistory(tmp_path, 0).read().starts == 0


def test_an_end_that_was_asked_for_is_no_crash(tmp_path: Path) -> None:
    for _ in range(2):
        history = CrashHistory(tmp_path, 0)
        history.read()
        history.begin()
        history.end()
    assert CrashHistory(tmp_path, 0).read().starts == 0
    crash(tmp_path)
    history = CrashHistory(tmp_path, 0)
    history.read()
    history.begin()
    history.end()
    assert CrashHistory(tmp_path, 0).read().starts == 1


@pytest.mark.parametrize("damage", [b"", b"two", b"\xff", b"1e3"])
def test_a_damaged_file_is_no_past(tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "worker-0.starts").write_bytes(damage)
    assert crash(tmp_path) == NO_CRASHES
    assert "cannot be read" in caplog.text
    assert CrashHistory(tmp_path, 0).read().starts == 1


def test_where_nothing_can_be_written_nothing_fails(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    history = CrashHistory(tmp_path / "none", 0)
    assert history.read() == NO_CRASHES
    handler = history.logging()
    history.begin()
    handler.handle(logging.LogRecord("x", logging.ERROR, __file__, 1, "said", None, None))
    history.settle()
    history.end()
    assert "cannot be counted" in caplog.text


def test_a_worker_that_dies_twice_while_it_loads_waits_and_says_why(run_dir: Path, tmp_path: Path) -> None:
    # In the place of a library that takes the process down: it says something, and is gone.
    dying = "import logging, os, signal\nlogging.error('no luck')\nos.kill(os.getpid(), signal.SIGKILL)\n"
    (tmp_path / "onnxruntime.py").write_text(dying)
    for _ in range(2):
        done = subprocess.run(
            worker_options(run_dir).command(),
            cwd=ROOT,
            env=environment() | {"PYTHONPATH": str(tmp_path)},
            check=False,
            timeout=TIMEOUT,
        )
        assert done.returncode == -signal.SIGKILL
    with start_worker(worker_options(run_dir)) as worker:
        state = worker.await_phase(Phase.FAILED)
        assert state.reason is not None
        assert "crashed at each of its last 2 starts" in state.reason
        assert "ERROR no luck" in state.reason
        assert worker.await_ready().reason is None
        wait_until(lambda: not (run_dir / "worker-0.starts").exists())
