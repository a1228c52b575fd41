"""Has each kernel compiled by one process of a host: the others wait meanwhile, and take it from the cache."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numba.core.compiler_lock import global_compiler_lock

MAX_WAIT_SECONDS = 20.0
"""A kernel is compiled in seconds. Who waits longer for a process, which may hang, compiles it, too, before its own
watchdog takes it for one that hangs."""
POLL_INTERVAL_SECONDS = 0.05


def compile_once(dispatcher: Any, folder: Path) -> None:
    """Have a Numba dispatcher wait for another process that compiles its function; `folder` is that of the cache."""
    name = f"{dispatcher.py_func.__module__}.{dispatcher.py_func.__qualname__}"
    compile_now = dispatcher.compile
    held = False

    def compile_alone(signature: Any) -> Any:
        nonlocal held
        # Numba's own lock comes first, as it is held while a kernel's callees are compiled. Kernels do not call each
        # other in a circle, so that no two processes wait for each other.
        with global_compiler_lock:
            if held:
                return compile_now(signature)
            held = True
            try:
                with _locked(folder / f"{name}.lock"):
                    return compile_now(signature)
            finally:
                held = False

    dispatcher.compile = compile_alone


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """A block that one process at a time is in. Where no file can be written, as the cache cannot, there is no lock."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = file.open("w")
    except OSError:
        yield
        return
    with lock:
        deadline = time.monotonic() + MAX_WAIT_SECONDS
        while time.monotonic() < deadline:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(POLL_INTERVAL_SECONDS)
            except OSError:  # a file system without locks
                break
        yield
