"""Child processes: started with their output in a log file, awaited, and ended with all of their descendants.

Calibration, the benchmarks and the tests start their servers and workers with it.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

POLL_INTERVAL_SECONDS = 0.05
MAX_POLL_INTERVAL_SECONDS = 0.25
POLLS_PER_WAIT = 20
"""A long wait is polled less often: what is awaited is noticed after a twentieth of the time that it took, at most."""
LOG_TAIL_LINES = 15


class ProcessEndedError(RuntimeError):
    """A child process ended before it was ready."""

    def __init__(self, returncode: int) -> None:
        super().__init__(f"the process ended with {returncode}")
        self.returncode = returncode


def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nothing listens at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_until(condition: Callable[[], bool], *, timeout: float, poll_interval: float = POLL_INTERVAL_SECONDS) -> None:
    """Return once `condition()` is true. Raises TimeoutError after `timeout` seconds.

    It is called every `poll_interval` seconds at first, and less often the longer the wait.
    """
    started = time.monotonic()
    while not condition():
        waited = time.monotonic() - started
        if waited > timeout:
            raise TimeoutError(f"the condition was not met within {timeout:g} s")
        time.sleep(max(poll_interval, min(waited / POLLS_PER_WAIT, MAX_POLL_INTERVAL_SECONDS)))


def await_ready(
    process: subprocess.Popen[bytes],
    is_ready: Callable[[], bool],
    *,
    timeout: float,
    poll_interval: float = POLL_INTERVAL_SECONDS,
) -> None:
    """Return once `is_ready()` is true.

    Raises ProcessEndedError if the process ends before, TimeoutError after `timeout` seconds.
    """

    def running_and_ready() -> bool:
        if process.poll() is not None:
            raise ProcessEndedError(process.returncode)
        return is_ready()

    wait_until(running_and_ready, timeout=timeout, poll_interval=poll_interval)


def log_tail(log: Path, lines: int = LOG_TAIL_LINES) -> str:
    """The last lines of a log file, without trailing white space."""
    with log.open(errors="replace") as file:
        return "".join(deque(file, lines)).rstrip()


@contextmanager
def running(
    command: Sequence[str | Path],
    *,
    log: Path | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    death_signal: signal.Signals = signal.SIGTERM,
    grace_seconds: float = 0.0,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the end of the block, then end it and its descendants with `end_tree`.

    Its output goes to `log`, which is overwritten, or else to the output of this process. If this process is killed,
    Linux sends the program `death_signal`. The program has a session of its own: Ctrl-C reaches this process alone,
    which then ends the program in order.
    """
    process: subprocess.Popen[bytes] | None = None
    try:
        with _interrupt_deferred(), _opened(log) as output:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", death_signal.name.removeprefix("SIG"), "--", *command],
                env=env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if output is not None else None,
                start_new_session=True,
            )
        yield process
    finally:
        if process is not None:
            end_tree(process, grace_seconds=grace_seconds)


def end_tree(process: subprocess.Popen[bytes], *, grace_seconds: float = 0.0) -> None:
    """End a child process and its descendants: SIGTERM to the child, SIGKILL to all that run after the grace period.

    Without a grace period they are killed at once.
    """
    descendants = process_tree(process.pid)[1:]
    if grace_seconds and process.poll() is None:
        deadline = time.monotonic() + grace_seconds
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace_seconds)
        psutil.wait_procs(descendants, timeout=max(0.0, deadline - time.monotonic()))
        # It may have started others since.
        descendants = [*descendants, *process_tree(process.pid)[1:]]
    # The parent first: a supervisor would start its children again.
    process.kill()
    for descendant in descendants:
        with suppress(psutil.NoSuchProcess):
            descendant.kill()
    process.wait()
    psutil.wait_procs(descendants)


def process_tree(pid: int) -> list[psutil.Process]:
    """A process and its descendants, itself first; empty if there is no such process."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


@contextmanager
def _opened(log: Path | None) -> Iterator[int | None]:
    """The file descriptor of `log`, open for writing, or None without a log."""
    if log is None:
        yield None
        return
    with log.open("wb") as file:
        yield file.fileno()


@contextmanager
def _interrupt_deferred() -> Iterator[None]:
    """Defer Ctrl-C to the end of the block: in the middle of a start, it would leave a process that nothing ends."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is interrupted
        return
    interrupts = []
    handler = signal.signal(signal.SIGINT, lambda *_: interrupts.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if interrupts:
            signal.raise_signal(signal.SIGINT)
