"""The lock of the process that runs the jobs of a folder; two objects stand for two processes (flock is by file)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from balancer.jobs.sqlite.runner_lock import LOCK, RunnerLock


def test_one_holds_it_until_it_is_released(tmp_path: Path) -> None:
    one, other = RunnerLock(tmp_path / "jobs"), RunnerLock(tmp_path / "jobs")
    assert one.acquire()
    assert one.acquire(), "whoever holds it may ask again"
    assert not other.acquire()
    one.release()
    assert other.acquire()
    assert not one.acquire()


def test_a_release_without_the_lock_changes_nothing(tmp_path: Path) -> None:
    one, other = RunnerLock(tmp_path), RunnerLock(tmp_path)
    assert one.acquire()
    other.release()
    assert not other.acquire()


def test_only_its_user_may_open_the_file_and_a_new_folder(tmp_path: Path) -> None:
    assert RunnerLock(tmp_path / "jobs").acquire()
    modes = [path.stat().st_mode & 0o777 for path in (tmp_path / "jobs", tmp_path / "jobs" / LOCK)]
    assert modes == [0o700, 0o600]


def test_a_removed_file_keeps_nobody_out(tmp_path: Path) -> None:
    one, other = RunnerLock(tmp_path), RunnerLock(tmp_path)
    assert one.acquire()
    (tmp_path / LOCK).unlink()
    assert other.acquire()
    assert not one.acquire(), "the file that lies there now is locked by the other"


def test_a_process_that_dies_lets_it_go(tmp_path: Path) -> None:
    code = "from pathlib import Path; from balancer.jobs.sqlite.runner_lock import RunnerLock\n"
    code += "import sys; lock = RunnerLock(Path(sys.argv[1])); print(lock.acquire(), flush=True); input()"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"True\n"
        lock = RunnerLock(tmp_path)
        assert not lock.acquire()
        process.kill()
        process.wait()
        assert lock.acquire()
